"""A loop that says each tick, and may take its time, fail, or hang."""

import os
import time

from daemonkit import Backoff, BaseDaemonCommand, Every
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.2)
    backoff = Backoff(first=600, cap=600)
    pulse = 0.5
    per_worker = True
    expect_success_within = float(os.environ.get("EXPECT", "0")) or None

    def add_arguments(self, parser):
        parser.add_argument("--seconds", type=float, default=0)
        parser.add_argument("--fails-after", type=int, default=None)

    ticks = 0

    def tick(self):
        self.ticks += 1
        say(f"tick {self.ticks} of worker {self.worker_number}")
        if self.options["seconds"]:
            time.sleep(self.options["seconds"])
        if self.options["fails_after"] is not None and self.ticks > self.options["fails_after"]:
            raise ValueError("no such price")
