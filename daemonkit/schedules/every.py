"""``Every``: an interval."""

from __future__ import annotations

import math
from typing import Any

from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule, clock_shift
from daemonkit.schedules.durations import duration_text
from daemonkit.schedules.value import Value


class Every(Value, Schedule):
    """At an interval from start to start; the first tick is due at once.

    It uses the monotonic clock and does not drift. After a tick that takes longer than the interval
    the next one is due at once; missed ticks are not made up.
    """

    is_fixed = True
    is_interval = True
    seconds: float

    def __init__(
        self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0
    ) -> None:
        for value in (seconds, minutes, hours, days):
            if not isinstance(value, int | float):
                raise ValueError(f"Every() takes numbers, as in Every(seconds=30), not {value!r}")
        total = seconds + 60 * minutes + 3600 * hours + 86400 * days
        if not 0 < total < float("inf"):
            raise ValueError(
                f"Every() needs an interval above zero, such as Every(seconds=30), not {total:g} s"
            )
        super().__init__(seconds=float(total))

    def __str__(self) -> str:
        return f"every {duration_text(self.seconds)}"

    def judge(self, result: Any) -> None:
        """None: the next due time does not depend on a tick's result."""

    def same_everywhere(self) -> Schedule:
        return Aligned(self.seconds)

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        if last is None:
            return begun
        due = last.due.monotonic + self.seconds
        # After an overlong tick: at once, and the interval counts from there.
        return now.at_monotonic(max(due, last.started.monotonic + last.seconds))


class Aligned(Every):
    """An interval with the same due times on every host: the multiples of it on the wall clock
    since 1970. Exclusive jobs use it."""

    is_interval = False

    def __str__(self) -> str:
        return f"{super().__str__()}, by the wall clock"

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        after = begun.wall if last is None else max(last.due.wall, last.started.wall)
        if (set_back := clock_shift(last, begun, now)) < -1:
            after += set_back
        turn = math.floor(after / self.seconds) + 1
        if turn * self.seconds <= after:  # the division was rounded down
            turn += 1
        return now.at_wall(turn * self.seconds)
