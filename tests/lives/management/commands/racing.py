"""An exclusive job that notes each due time, or hands it to a queue; killed at any moment."""

import contextlib
import random
import threading
import time

from daemonkit import BaseDaemonCommand, Every, job
from daemonkit.signals import iteration_started
from tests.lives.sql import note, say

here = threading.local()


def remember(due, **_):
    here.due = due.utc.isoformat()


class Command(BaseDaemonCommand):
    def add_arguments(self, parser):
        parser.add_argument("--to", choices=["sql", "celery", "tasks"], default="sql")

    @contextlib.contextmanager
    def lifespan(self):
        iteration_started.connect(remember)
        say("open")
        yield

    @job(Every(seconds=0.25), exclusive=True)
    def hand(self):
        time.sleep(random.uniform(0, 0.1))  # a moment in which to be killed
        getattr(self, f"to_{self.options['to']}")(here.due)
        time.sleep(random.uniform(0, 0.1))

    def to_sql(self, due):
        note(due)

    def to_celery(self, due):
        from shop.celery import mail_report

        mail_report.delay(due)

    def to_tasks(self, due):
        from tests.lives.tasks import note_it

        note_it.enqueue(due)
