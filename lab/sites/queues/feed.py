"""``python -m lab.sites.queues.feed celery``: keeps a queue filled, for as long as it runs."""

import os
import sys
import time

import django
import redis

django.setup()


def main(kind: str) -> None:
    workers = int(os.environ["BENCHMARK_WORKERS"])
    client = redis.Redis.from_url(os.environ["BENCHMARK_REDIS"])
    if kind == "celery":
        from lab.sites.queues.celery import report

        key, push = "celery", report.delay
    else:
        from django.conf import settings
        from django_q.brokers import get_broker
        from django_q.tasks import async_task

        key = get_broker().list_key

        def push() -> None:
            async_task("lab.sites.queues.work.report", settings.REDIS_URL)

    while True:
        if client.llen(key) < 2 * workers:
            push()
        else:
            time.sleep(0.002)


if __name__ == "__main__":
    main(sys.argv[1])
