"""A job whose claim and work commit together, killed at any moment; some of its runs fail."""

import random
import time

from daemonkit import Backoff, BaseDaemonCommand, Every, job
from daemonkit.testing import gate
from tests.lives.sql import note, say


class Command(BaseDaemonCommand):
    backoff = Backoff(first=0.02, cap=0.04)

    @job(Every(seconds=0.25), exclusive="atomic", retries=2)
    def turn(self):
        with self.guarded():
            note(f"{self.due.timestamp():.2f}")
        say(f"noted {self.due.timestamp():.2f}")
        gate("in the transaction")
        time.sleep(random.uniform(0, 0.05))
        if self.attempt == 1 and random.random() < 0.3:
            raise ValueError("not in the first try")
