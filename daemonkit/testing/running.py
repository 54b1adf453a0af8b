"""Run a daemon in a test: in the test's own process, on a fake clock."""

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
"""A daemon's class, an instance, its name, or the dotted path of a function."""

_DEFAULTS = {"pulse": 3600.0, "leader": False, "skip_checks": True}
"""Options that suit a test better than the class's own."""

_EXTRA_SECONDS = 0.001
"""Seconds for which a daemon runs on after ``until``, to run what is due at exactly that moment."""


class SkippedRun(NamedTuple):
    """A due time at which a job did not run, and the reason."""

    job: str
    due: Moment
    reason: str


class DaemonUnderTest:
    """A daemon on a fake clock, with the iterations of its ticks and jobs.

    By default ``clock`` starts at the present time. ``options`` are those of the command line, and
    ``schedule`` and ``raise_errors``: with ``raise_errors=False`` a tick that fails does not raise
    its error in the test.
    """

    def __init__(
        self, daemon: DaemonName, *, clock: FakeClock | None = None, **options: Any
    ) -> None:
        self.command = command_of(daemon)
        self.clock = clock or FakeClock(time.time())
        self.options = options
        self.iterations: list[Iteration] = []
        """One for each tick and each run of a job, in the order in which they ended."""
        self.skipped: list[SkippedRun] = []

    def run_ticks(self, count: int = 1, **options: Any) -> list[Iteration]:
        """Run ``count`` ticks, or runs of jobs, and return their iterations. Raises the error of
        one that failed."""
        return self._live(max_ticks=count, **options)

    def run_due(self, until: datetime | timedelta | float, **options: Any) -> list[Iteration]:
        """Run everything that is due by ``until``, and return the iterations.

        ``until`` is an aware datetime, or a time from now: a timedelta, or seconds. Raises the
        error of an iteration that failed, and ``ValueError`` if ``until`` has passed.
        """
        seconds = self._seconds(until)
        if seconds < 0:
            raise ValueError(f"{until} has passed: it is {self.clock.moment().utc}")
        return self._live(max_seconds=seconds + _EXTRA_SECONDS, **options)

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
    """Run ``count`` ticks of a daemon, or runs of its jobs, on a fake clock.

    Returns their iterations. Raises the error of one that failed. Options are those of
    ``DaemonUnderTest``.
    """
    return DaemonUnderTest(daemon, **options).run_ticks(count)


def run_due(
    daemon: DaemonName, until: datetime | timedelta | float, **options: Any
) -> list[Iteration]:
    """Run all ticks, or all jobs, that are due by ``until``, on a fake clock.

    ``until`` is an aware datetime, or a time from now: a timedelta, or seconds. Returns their
    iterations. Raises the error of one that failed. Options are those of ``DaemonUnderTest``.
    """
    return DaemonUnderTest(daemon, **options).run_due(until)


def command_of(daemon: DaemonName) -> BaseDaemonCommand:
    """The daemon's instance. Raises ``CommandError`` for an unknown name."""
    if isinstance(daemon, str):
        return find_daemon(daemon)
    return daemon() if isinstance(daemon, type) else daemon
