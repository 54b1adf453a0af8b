"""Jobs that are added at run time: ``--adds NAME`` says which ones."""

import itertools
import os
import threading
import time

from daemonkit import BaseDaemonCommand, Every
from tests.lives import sql
from tests.lives.sql import note, say


class Command(BaseDaemonCommand):
    lease = 2.0

    def add_arguments(self, parser):
        parser.add_argument("--adds", action="append", default=[])

    def add_jobs(self, scheduler):
        self.counts = itertools.count(1)
        add = {
            "slow": lambda: scheduler.add_job(self.slow, id="slow"),
            "overdue": lambda: scheduler.add_job(self.overdue, id="overdue"),
            "asking": lambda: scheduler.add_job(self.asking, "interval", seconds=1, id="asking"),
            "counting": lambda: scheduler.add_job(
                self.counting, "interval", seconds=0.2, id="counting"
            ),
            "changing": threading.Thread(target=self.change, daemon=True).start,
            "turn": lambda: scheduler.add_job(
                self.turn, Every(seconds=0.5), id="turn", exclusive=True
            ),
            "led": lambda: scheduler.add_job(self.turn, "interval", seconds=0.2, id="led"),
        }
        for name in self.options["adds"]:
            add[name]()

    def slow(self):
        note("begun")
        say("in the middle")
        while not self.stopping:
            time.sleep(0.01)
        sql.sleep(0.3)
        note("done")
        say("committed")

    def overdue(self):
        say("overdue begins")
        sql.sleep(60)

    def asking(self):
        say(f"session {sql.session()}")

    def counting(self):
        say(f"counted {next(self.counts)}")

    def turn(self):
        note(f"{os.getpid()} {self.due.timestamp():.1f}")

    def change(self):
        """Add a job and remove it, on a thread of its own."""
        has_run = threading.Event()

        def late():
            say(f"late due {self.due.timestamp():.3f}")
            has_run.set()

        for _ in range(3):
            self.scheduler.add_job(late, "interval", seconds=0.1, id="late")
            has_run.wait()
            self.scheduler.remove_job("late")
            say(f"removed {time.time():.3f}")
            has_run.clear()
        say("changed")
