"""The two clocks, read together, and waiting by them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

_new = tuple.__new__  # each tick makes three moments, and Moment() takes twice as long


class Moment(NamedTuple):
    """One moment on both clocks.

    ``monotonic`` is in the seconds of ``time.monotonic()``: intervals and time-outs run on it,
    and nobody can set it. ``wall`` is in the seconds of ``time.time()``: cron runs on it.
    """

    monotonic: float
    wall: float

    def later(self, seconds: float) -> Moment:
        """The moment that lies so many seconds ahead, if neither clock is set meanwhile."""
        return Moment(self.monotonic + seconds, self.wall + seconds)

    def at_monotonic(self, monotonic: float) -> Moment:
        """The moment when the monotonic clock shows this, seen from now."""
        return _new(Moment, (monotonic, self.wall + monotonic - self.monotonic))

    def at_wall(self, wall: float) -> Moment:
        """The moment when the wall clock shows this, seen from now."""
        return Moment(self.monotonic + wall - self.wall, wall)

    @property
    def utc(self) -> datetime:
        """The wall clock's side as an aware datetime."""
        return datetime.fromtimestamp(self.wall, UTC)


NEVER = Moment(math.inf, math.inf)
"""The due moment of what is not due any more."""

NOTHING_DUE = "nothing is due any more"
"""Why a life ends whose schedule says so."""


class Clock:
    """The machine's clocks. Hand another one to ``call_command(..., clock=...)`` in a test."""

    def moment(self) -> Moment:
        """Now, on both clocks."""
        return _new(Moment, (time.monotonic(), time.time()))

    def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
        """Let ``seconds`` pass, or less if ``told_to_stop``, which does the waiting, ends early."""
        told_to_stop(seconds)

    def at_rest(self, rest: Callable[[], None]) -> None:
        """Told by a loop before it waits: ``rest`` returns when no thread of its is at work any
        more. Time that passes by itself need not care."""
