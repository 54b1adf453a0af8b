"""Units of work on one thread: they fail, are interrupted by signals, and lose their sessions.

A step is a unit of work at which anything may happen, and another one that must be healthy.
"""

from __future__ import annotations

import gc
import logging
import sys
from random import Random
from typing import Any

from soaks.databases import Database, count_descriptors, database
from soaks.interrupts import Interrupts
from soaks.soak import Report, Size, Soak

KILL_EVERY = 50
"""In steps; a step is two units of work."""
CHECK_EVERY = 500
OBJECTS_LEFT = 500
"""How many objects more there may be at the end than after the first check: caches grow a little.
One for each failure or KILL would be more."""


class Units(Soak):
    """With random exceptions, also from signal handlers, and every hundredth followed by a KILL."""

    name = "units"
    variants = ("mariadb", "postgres", "pool", "sqlite")
    steps = 10_000

    def run(self, variant: str, random: Random, size: Size) -> Report:
        logging.getLogger().addHandler(logging.NullHandler())
        sys.unraisablehook = lambda _: None  # an interrupt may hit a destructor, too
        with database(variant) as found:
            run = Run(found, random)
            for number in size.numbers():
                run.step(number)
            run.end()
            return run.report


class Run:
    """The steps of one soak, and what must be true after each."""

    def __init__(self, database: Database, random: Random) -> None:
        from soaks import work

        self.database, self.random = database, random
        self.kinds, self.kept = work.KINDS, work.kept
        self.healthy_work = work.commit_by_atomic
        self.interrupts = Interrupts(random)
        self.report = Report()
        self.there: set[str] = set()
        self.perhaps_there: set[str] = set()
        self.baseline: tuple[int, int] | None = None

    def step(self, number: int) -> None:
        self.disturbed(number)
        self.healthy(f"{number} healthy")
        if number % KILL_EVERY == KILL_EVERY - 1:
            self.database.kill_sessions()
            self.report.seen["KILLs"] += 1
            self.healthy(f"{number} after a KILL")
        if number % CHECK_EVERY == CHECK_EVERY - 1:
            self.check(number)
            self.change_settings()

    def disturbed(self, number: int) -> None:
        """Do a unit of work that may fail, and may be interrupted."""
        kind = self.random.choice(self.kinds)
        note = f"{number} {kind.work.__name__}"
        raised = self.interrupts.raised
        ended = self._do(kind.work, note, is_interrupted=self.random.random() < 0.5)
        self.report.seen[f"ended {ended}"] += 1
        if kind.commits and ended == "well":
            self.there.add(note)
        elif kind.commits or (kind.is_left_to_django and self.interrupts.raised > raised):
            self.perhaps_there.add(note)
        self._is_at_rest(f"{note}, ended {ended}")

    def _do(self, work: Any, note: str, *, is_interrupted: bool) -> str:
        """Return how it ended: "well", or by which exception."""
        from daemonkit import fresh_connections

        try:
            if is_interrupted:
                with self.interrupts.soon(), fresh_connections:
                    work(note)
            else:
                with fresh_connections:
                    work(note)
        except BaseException as error:
            return f"by {type(error).__name__}"
        return "well"

    def healthy(self, note: str) -> None:
        """Do a unit of work that must succeed."""
        from daemonkit import fresh_connections

        try:
            with fresh_connections:
                self.healthy_work(note)
        except Exception as error:
            self.report.wrong.append(f"{note}: {type(error).__name__}: {error}")
            self.perhaps_there.add(note)
        else:
            self.there.add(note)
        self.report.seen["healthy"] += 1
        self._is_at_rest(note)

    def _is_at_rest(self, note: str) -> None:
        from daemonkit.connections.thread import this_thread

        depth = this_thread().depth
        self.report.expect(depth == 0, f"{note}: the depth is {depth}")
        this_thread().depth = 0  # each fault is told once

    def check(self, number: int) -> None:
        """Compare the rows, the sessions, the descriptors and the objects with what must be."""
        from django.db import connection

        notes = self.database.notes()
        lost = self.there - notes
        undone = notes - self.there - self.perhaps_there
        self.report.expect(not lost, f"step {number}: lost {sorted(lost)[:5]}")
        self.report.expect(not undone, f"step {number}: kept, though undone: {sorted(undone)[:5]}")
        self.database.clear()
        self.there.clear()
        self.perhaps_there.clear()
        self.kept.clear()  # an atomic() block that is left so late may connect once more
        connection.close()
        gc.collect()  # what was interrupted while it connected waits for it
        is_down = self.database.sessions_come_down_to(self.database.idle_sessions)
        self.report.expect(is_down, f"step {number}: sessions are left over")
        self._compare_with_baseline(number)

    def _compare_with_baseline(self, number: int) -> None:
        found = count_descriptors(), len(gc.get_objects())
        if self.baseline is None:
            self.baseline = found
        descriptors, objects = found[0] - self.baseline[0], found[1] - self.baseline[1]
        may_stay = self.database.idle_sessions
        self.report.expect(
            descriptors <= may_stay, f"step {number}: {descriptors} descriptors more"
        )
        self.report.expect(objects <= OBJECTS_LEFT, f"step {number}: {objects} more objects")

    def change_settings(self) -> None:
        """Go on with other settings, as another project has them."""
        from django.db import connection

        if not self.database.is_pooled:
            connection.settings_dict["CONN_MAX_AGE"] = self.random.choice((0, 60, None))
            connection.settings_dict["CONN_HEALTH_CHECKS"] = self.random.random() < 0.5

    def end(self) -> None:
        self.report.seen["interrupted"] = self.interrupts.raised
        self.check(-1)
