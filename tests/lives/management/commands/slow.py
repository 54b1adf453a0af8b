"""A transaction that takes its time in the driver, or proves progress meanwhile."""

import time

from django.db import transaction

from daemonkit import BaseDaemonCommand, Every
from tests.lives.sql import note, say, sleep


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def add_arguments(self, parser):
        parser.add_argument("--seconds", type=float, default=2)
        parser.add_argument("--beats", action="store_true")
        parser.add_argument("--python", action="store_true")

    def tick(self):
        with transaction.atomic():
            note("begun")
            say("in the middle")
            self.pass_time(self.options["seconds"])
            note("done")
        say("committed")

    def pass_time(self, seconds):
        if self.options["python"]:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                time.sleep(0.05)
        elif self.options["beats"]:
            for number in range(round(seconds * 5)):
                sleep(0.2)
                self.beat(f"{number} of {seconds * 5:g}")
        else:
            sleep(seconds)
