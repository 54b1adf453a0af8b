"""Computes when a job is due. Nothing here waits or reads a clock."""

from __future__ import annotations

from collections import deque

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule

LOOK_BACK_HOURS = (1, 24, 24 * 31, 24 * 366)
"""How far back to search for missed due times, in turn, until enough are found."""


class DueTimes:
    """The due times of one schedule, one after the other.

    ``since`` is the moment from which the schedule counts.
    """

    def __init__(self, schedule: Schedule, since: Moment) -> None:
        self.schedule, self.since = schedule, since
        self._scheduled = NEVER
        self._added: Moment | None = None
        self._previous: Moment | None = None

    @property
    def next(self) -> Moment:
        """The next due time."""
        return self._scheduled if self._added is None else min(self._added, self._scheduled)

    def start(self, now: Moment) -> None:
        """Set the first due time."""
        self._scheduled = self.schedule.due(None, self.since, now)

    def restart(self, since: Moment, now: Moment) -> None:
        """Start again: this process has become the leader."""
        self.since, self._previous, self._added = since, None, None
        self.start(now)

    def go_on_at(self, due: Moment) -> None:
        """Continue the schedule with this due time."""
        self._scheduled = due

    def add(self, due: Moment) -> None:
        """Add one due time to those of the schedule."""
        self._added = due

    def ask_again(self, now: Moment) -> None:
        """Ask the schedule again for the next due time: the wall clock was set."""
        if self.schedule.is_fixed and self._scheduled != NEVER:
            previous = self._previous
            last = None if previous is None else Iteration(1, previous, previous, 0.0)
            self._scheduled = self.schedule.due(last, self.since, now)

    def after(self, due: Moment, now: Moment) -> Moment:
        """The due time after this one, whatever its run takes."""
        return self.schedule.due(Iteration(1, due, due, 0.0), self.since, now)

    def take(self, now: Moment, limit: int) -> list[Moment]:
        """Take the newest ``limit`` due times up to ``now``, and go on to the next.

        If the schedule is not fixed, there is no next one until the run has ended.
        """
        passed = []
        if self._added is not None and self._added.monotonic <= now.monotonic:
            passed, self._added = [self._added], None
        due = self._scheduled
        if due.monotonic > now.monotonic:
            return passed
        if not self.schedule.is_fixed:
            self._scheduled = NEVER
            return [*passed, due]
        following = self.after(due, now)
        if following.monotonic > now.monotonic:  # almost always
            self._scheduled, self._previous = following, due
            return [*passed, due]
        if self.schedule.is_interval:
            due = self._leap(due, now, limit)
        several, self._scheduled = self._walk(due, now, limit)
        self._previous = several[-1]
        return passed + several

    def between(self, last: Moment, now: Moment, limit: int) -> list[Moment]:
        """The newest ``limit`` due times after ``last`` and up to ``now``.

        There may be a year of them, one a minute, so this begins an hour ago and looks further
        back only if it must.
        """
        found: list[Moment] = []
        for start in (*(now.later(-3600.0 * hours) for hours in LOOK_BACK_HOURS), last):
            start = max(last, start)
            found, _ = self._walk(self.after(start, now), now, limit)
            if len(found) == limit or start == last:
                break
        return found

    def _walk(self, due: Moment, now: Moment, limit: int) -> tuple[list[Moment], Moment]:
        """The newest due times from ``due`` up to ``now``, and the one that follows."""
        passed: deque[Moment] = deque(maxlen=limit)
        while due.monotonic <= now.monotonic:
            passed.append(due)
            due = self.after(due, now)
        return list(passed), due

    def _leap(self, due: Moment, now: Moment, limit: int) -> Moment:
        """Skip all but the last ``limit`` intervals up to ``now``, after the process was frozen."""
        seconds: float = self.schedule.seconds  # type: ignore[attr-defined]
        intervals = int((now.monotonic - due.monotonic) / seconds) - limit
        return now.at_monotonic(due.monotonic + intervals * seconds) if intervals > 0 else due
