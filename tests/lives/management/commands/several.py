"""Jobs that take their time, of which some do not end by themselves."""

import os
import threading
import time

from django.db import transaction

from daemonkit import BaseDaemonCommand, Every, job
from tests.lives.sql import note, say, sleep


class Command(BaseDaemonCommand):
    def add_arguments(self, parser):
        parser.add_argument("--seconds", type=float, default=2)

    @job(Every(seconds=60))
    def slow(self):
        with transaction.atomic():
            note("begun")
            say("in the middle")
            sleep(self.options["seconds"])
            note("done")
        say("committed")

    @job(Every(seconds=60), tick_timeout=0.3)
    def overdue(self):
        say("overdue begins")
        sleep(60)

    @job(Every(seconds=60))
    def hanging(self):
        say("hanging now")
        while True:
            try:
                time.sleep(60)
            except BaseException:
                continue

    @job(Every(seconds=0.5), tick_timeout=1, exclusive=True)
    def stuck(self):
        self.hanging()

    @job(Every(seconds=60))
    def leaving(self):
        raise SystemExit(3)

    @job(Every(seconds=60))
    def interrupted(self):
        raise KeyboardInterrupt

    @job(Every(seconds=60))
    def counting(self):
        say(f"threads {threading.active_count()} pid {os.getpid()}")

    @job(Every(seconds=0.1), exclusive=True)
    def alone(self):
        say("alone")

    @job(Every(seconds=0.2))
    def ticking(self):
        say(f"ticking {time.monotonic()}")
