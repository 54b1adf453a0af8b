"""Running a daemon in a test: in the test's own process, on a clock that the test moves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.core.management import call_command

from daemonkit import signals
from daemonkit.clock import Moment
from daemonkit.command import BaseDaemonCommand
from daemonkit.discovery import find_daemon
from daemonkit.iteration import Iteration
from daemonkit.testing.clock import FakeClock, seconds_since_1970

DaemonName = type[BaseDaemonCommand] | BaseDaemonCommand | str
"""A daemon's class, the daemon itself, or its name; a dotted path of a function, too."""

_DEFAULTS = {"pulse": 3600.0, "leader": False, "skip_checks": True}
"""Options that are better for a test than what the class says."""

_SHORTEST = 0.001
"""Seconds: so much longer than ``until`` a daemon lives, to run what is due at that moment."""


class SkippedRun(NamedTuple):
    """A due time of a job that passed without a run, and why."""

    job: str
    due: Moment
    reason: str


class DaemonUnderTest:
    """A daemon on a fake clock, and all that its ticks and jobs have come to.

    ``clock`` begins now, unless it is given. ``options`` are those of the command line, with
    ``schedule`` and ``raise_errors`` besides: the error of a tick that fails is raised, unless
    ``raise_errors=False``.
    """

    def __init__(
        self, daemon: DaemonName, *, clock: FakeClock | None = None, **options: Any
    ) -> None:
        self.command = command_of(daemon)
        self.clock = clock or FakeClock(time.time())
        self.options = options
        self.iterations: list[Iteration] = []
        """What every tick and every run of a job came to, in the order of their ends."""
        self.skipped: list[SkippedRun] = []

    def run_ticks(self, count: int = 1, **options: Any) -> list[Iteration]:
        """Run so many ticks, or runs of jobs; what they came to. Raises the error of one that
        failed."""
        return self._live(max_ticks=count, **options)

    def run_due(self, until: datetime | timedelta | float, **options: Any) -> list[Iteration]:
        """Run all that is due until then, by the wall clock or counted from now; what it came to.

        Raises the error of one that failed, and ``ValueError`` if ``until`` has passed.
        """
        seconds = self._seconds(until)
        if seconds < 0:
            raise ValueError(f"{until} has passed: it is {self.clock.moment().utc}")
        return self._live(max_seconds=seconds + _SHORTEST, **options)

    def _live(self, **options: Any) -> list[Iteration]:
        before = len(self.iterations)
        settings = {**_DEFAULTS, **self.options, **options}
        with self._noting():
            call_command(self.command, clock=self.clock, **settings)
        return self.iterations[before:]

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        sender = type(self.command)
        signals.iteration_finished.connect(self._on_finished, sender=sender)
        signals.run_skipped.connect(self._on_skipped, sender=sender)
        try:
            yield
        finally:
            signals.iteration_finished.disconnect(self._on_finished, sender=sender)
            signals.run_skipped.disconnect(self._on_skipped, sender=sender)

    def _on_finished(self, iteration: Iteration, **_: Any) -> None:
        self.iterations.append(iteration)

    def _on_skipped(self, job: str, due: Moment, reason: str, **_: Any) -> None:
        self.skipped.append(SkippedRun(job, due, reason))

    def _seconds(self, until: datetime | timedelta | float) -> float:
        if isinstance(until, datetime):
            return seconds_since_1970(until) - self.clock.moment().wall
        return until.total_seconds() if isinstance(until, timedelta) else float(until)


def run_ticks(daemon: DaemonName, count: int = 1, **options: Any) -> list[Iteration]:
    """Run so many ticks of a daemon, or runs of its jobs, on a fake clock.

    Returns what they came to. Raises the error of one that failed. Options are those of
    ``DaemonUnderTest``.
    """
    return DaemonUnderTest(daemon, **options).run_ticks(count)


def run_due(
    daemon: DaemonName, until: datetime | timedelta | float, **options: Any
) -> list[Iteration]:
    """Run all ticks, or all jobs, that are due until then, on a fake clock.

    ``until`` is an aware datetime, or a time from now: a timedelta, or seconds. Returns what they
    came to. Raises the error of one that failed. Options are those of ``DaemonUnderTest``.
    """
    return DaemonUnderTest(daemon, **options).run_due(until)


def command_of(daemon: DaemonName) -> BaseDaemonCommand:
    """The daemon itself. Raises ``CommandError`` for a name that means none."""
    if isinstance(daemon, str):
        return find_daemon(daemon)
    return daemon() if isinstance(daemon, type) else daemon
