"""The wall clock, as somebody may set it."""

from __future__ import annotations

from datetime import datetime, timedelta

from daemonkit.clock import Moment

SET_BY = 0.05
"""Seconds by which the wall clock must move against the monotonic one to count as set."""

REPEATS_AFTER = 1.0
"""Seconds by which it must be set back to show times again that jobs are due at."""


class WallClock:
    """Notices that the wall clock was set, and tells due times apart that it shows twice."""

    def __init__(self, begun: Moment) -> None:
        self._offset = begun.wall - begun.monotonic
        self._set_back_at: list[float] = []  # what it showed, each time, before it was set back

    def was_set(self, now: Moment) -> bool:
        """Whether it was set since the last question."""
        offset = now.wall - now.monotonic
        if abs(offset - self._offset) < SET_BY:
            return False
        if offset < self._offset - REPEATS_AFTER:
            self._set_back_at.append(now.monotonic + self._offset)
        self._offset = offset
        return True

    def label(self, due: Moment) -> datetime:
        """The due time in the ledger. One that the wall clock shows a second time is labelled a
        microsecond later."""
        if not self._set_back_at:
            return due.utc
        times = sum(before >= due.wall for before in self._set_back_at)
        return due.utc + timedelta(microseconds=times)
