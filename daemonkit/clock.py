"""The wall clock and the monotonic clock, read together, and waits that a test can replace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

_new = tuple.__new__  # each tick makes three moments, and Moment() takes twice as long


class Moment(NamedTuple):
    """One moment on both clocks.

    ``monotonic`` is in seconds as ``time.monotonic()``. Intervals and time-outs use it, because it
    cannot be set. ``wall`` is in seconds as ``time.time()``. Cron uses it.
    """

    monotonic: float
    wall: float

    def later(self, seconds: float) -> Moment:
        """The moment ``seconds`` later, if the wall clock is not set meanwhile."""
        return Moment(self.monotonic + seconds, self.wall + seconds)

    def at_monotonic(self, monotonic: float) -> Moment:
        """The moment at which the monotonic clock shows this, as seen from this one."""
        return _new(Moment, (monotonic, self.wall + monotonic - self.monotonic))

    def at_wall(self, wall: float) -> Moment:
        """The moment at which the wall clock shows this, as seen from this one."""
        return Moment(self.monotonic + wall - self.wall, wall)

    @property
    def utc(self) -> datetime:
        """The wall clock's time as an aware datetime."""
        return datetime.fromtimestamp(self.wall, UTC)


NEVER = Moment(math.inf, math.inf)
"""The due time of something that is never due again."""

NOTHING_DUE = "nothing is due any more"
"""Why a life ends whose schedule has no further due time."""


class Clock:
    """The machine's clocks. Hand another one to ``call_command(..., clock=...)`` in a test."""

    def moment(self) -> Moment:
        """Now, on both clocks."""
        return _new(Moment, (time.monotonic(), time.time()))

    def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
        """Wait ``seconds`` by calling ``told_to_stop``, which returns early if a stop is
        requested."""
        told_to_stop(seconds)

    def since_boot(self) -> float:
        """Seconds on a clock that cannot be set and that runs while the machine is suspended."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def call_regularly(self, step: Callable[[], float]) -> bool:
        """Whether the clock calls ``step`` now, and again each time the seconds that it returned
        have passed. A clock that a test moves does. A real one does not: use a thread."""
        return False

    def stop_calling(self, step: Callable[[], float]) -> None:
        """End the calls of ``step``."""

    def at_rest(self, rest: Callable[[], None]) -> None:
        """Called by a loop with jobs before it waits. ``rest`` returns when no job runs any more: a
        clock that a test moves calls it first."""
