"""``Poll``: again at once while there is work, after a pause when there is none."""

from __future__ import annotations

from typing import Any

from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.durations import duration_text
from daemonkit.schedules.value import Value


class Poll(Value, Schedule):
    """Due again at once if ``tick()`` returns a true value, otherwise after ``idle`` seconds."""

    has_times = False
    idle: float

    def __init__(self, idle: float = 5.0) -> None:
        if not isinstance(idle, int | float) or not 0 < idle < float("inf"):
            raise ValueError(f"Poll() needs an idle time above zero seconds, not {idle!r}")
        super().__init__(idle=idle)

    def __str__(self) -> str:
        return f"poll, idle {duration_text(self.idle)}"

    def judge(self, result: Any) -> bool:
        """Whether the tick found work, so that there may be more."""
        return bool(result)

    @property
    def is_shareable(self) -> bool:
        return True

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        if last is None:
            return begun
        pause = 0.0 if last.result else self.idle
        return now.at_monotonic(last.started.monotonic + last.seconds + pause)
