"""Notices changes of the wall clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from daemonkit.clock import Moment

MIN_SHIFT = 0.05
"""Seconds by which the wall clock must shift against the monotonic one to count as set."""

MIN_SET_BACK = 1.0
"""Seconds by which it must be set back for due times to count as repeated."""


class WallClock:
    """Notices that the wall clock was set, and distinguishes due times that it shows twice."""

    def __init__(self, begun: Moment) -> None:
        self._offset = begun.wall - begun.monotonic
        self._set_back_at: list[float] = []  # the time before each setting back

    def was_set(self, now: Moment) -> bool:
        """Whether it was set since the last call."""
        offset = now.wall - now.monotonic
        if abs(offset - self._offset) < MIN_SHIFT:
            return False
        if offset < self._offset - MIN_SET_BACK:
            self._set_back_at.append(now.monotonic + self._offset)
        self._offset = offset
        return True

    def label(self, due: Moment) -> datetime:
        """The due time for the ledger. One that the wall clock shows a second time gets one more
        microsecond."""
        if not self._set_back_at:
            return due.utc
        times = sum(before >= due.wall for before in self._set_back_at)
        return due.utc + timedelta(microseconds=times)
