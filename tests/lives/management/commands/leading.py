"""Appends (epoch, number) under guard, of all that run it one at a time."""

import itertools
import time

from daemonkit import Backoff, BaseDaemonCommand, Every, StaleEpoch
from daemonkit.testing import gate
from tests.lives.sql import note, say, sleep


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.05)
    backoff = Backoff(first=0.1, cap=0.2)
    leader = True
    lease = 2.0
    numbers = itertools.count(1)

    def add_arguments(self, parser):
        parser.add_argument("--seconds", type=float, default=0)
        parser.add_argument("--python", action="store_true")
        parser.add_argument("--late-write", action="store_true")
        parser.add_argument("--dawdle", type=float, default=0)

    def tick(self):
        number, epoch = next(self.numbers), self.epoch
        say(f"begins {epoch} {number}")
        gate(f"tick {number}")
        if self.options["seconds"]:
            self.pass_time(self.options["seconds"])
        if self.options["late_write"]:
            self.write_unguarded(epoch, number)
            return
        try:
            with self.guarded():
                note(f"{epoch} {number}")
                if number % 2:
                    time.sleep(self.options["dawdle"])
        except StaleEpoch as error:
            say(f"stale {epoch} {number}: {error}")
        else:
            say(f"wrote {epoch} {number}")

    def pass_time(self, seconds):
        if not self.options["python"]:
            sleep(seconds)
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.01)

    def write_unguarded(self, epoch, number):
        try:
            note(f"{epoch} {number}")
        except Exception as error:
            say(f"refused {epoch} {number}: {error}")
        else:
            say(f"wrote {epoch} {number}")
