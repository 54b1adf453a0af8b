"""Runs C code that keeps Python's lock."""

import re

from daemonkit import BaseDaemonCommand, Every
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.1)
    tick_timeout = 1.0
    pulse = 0.5
    stop_timeout = 1.0
    ticks = 0

    def tick(self):
        self.ticks += 1
        say(f"tick {self.ticks}")
        if self.ticks == 3:
            re.match(r"(a+)+$", "a" * 40 + "!")
