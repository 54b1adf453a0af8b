"""An exclusive job that notes the begin and the end of each run, which a test may hold up."""

import os

from daemonkit import Backoff, BaseDaemonCommand, Every, StaleEpoch, job
from daemonkit.testing import gate
from tests.lives.sql import note, say


class Command(BaseDaemonCommand):
    lease = 2.0
    backoff = Backoff(first=0.02, cap=0.04)

    def add_arguments(self, parser):
        parser.add_argument("--fails", type=int, default=0)

    @job(Every(seconds=0.5), exclusive=True, retries=3)
    def turn(self):
        due = self.due.timestamp()
        say(f"begins {due:.1f} attempt {self.attempt}")
        with self.guarded():
            note(f"begin {os.getpid()} {due:.1f}")
        gate("in the run")
        try:
            with self.guarded():
                note(f"end {os.getpid()} {due:.1f}")
        except StaleEpoch:
            say(f"stale {due:.1f}")
            raise
        if self.attempt <= self.options["fails"]:
            raise ValueError("not yet")
        say(f"ended {due:.1f}")
