"""Celery's app, as its documentation sets it up beside Django."""

import os

import celery
import django
from django.conf import settings

django.setup()

app = celery.Celery("benchmarks", broker=os.environ["BENCHMARK_REDIS"])
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = False
app.conf.broker_connection_retry_on_startup = True


@app.task(name="report")
def report() -> None:
    from lab.sites.queues.work import report as work

    work(settings.REDIS_URL)
