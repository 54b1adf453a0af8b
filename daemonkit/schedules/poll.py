"""``Poll``: again at once while there is work, after a pause when there is none."""

from __future__ import annotations

from typing import Any

from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.durations import duration_text
from daemonkit.schedules.value import Value


class Poll(Value, Schedule):
    """Due again at once if ``tick()`` returns a true value, otherwise after ``idle`` seconds.

    With ``cap`` the pauses of a poller grow while its queue is empty: each is twice the one before,
    and none is longer than ``cap`` seconds.
    """

    has_times = False
    idle: float
    cap: float | None = None

    def __init__(self, idle: float = 5.0, cap: float | None = None) -> None:
        if not isinstance(idle, int | float) or not 0 < idle < float("inf"):
            raise ValueError(f"Poll() needs an idle time above zero seconds, not {idle!r}")
        if cap is None:
            super().__init__(idle=idle)
            return
        if not isinstance(cap, int | float) or not idle <= cap < float("inf"):
            raise ValueError(f"Poll() needs a cap of at least its idle time, not {cap!r}")
        super().__init__(idle=idle, cap=cap)

    def __str__(self) -> str:
        growth = f" to {duration_text(self.cap)}" if self.cap is not None else ""
        return f"poll, idle {duration_text(self.idle)}{growth}"

    def judge(self, result: Any) -> Any:
        """Whether the tick found work, so that there may be more. What counts its empty ticks is
        kept as it is."""
        return result if self.cap is not None and hasattr(result, "empty_ticks") else bool(result)

    @property
    def is_shareable(self) -> bool:
        return True

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        if last is None:
            return begun
        pause = 0.0 if last.result else self._pause(getattr(last.result, "empty_ticks", 1))
        return now.at_monotonic(last.started.monotonic + last.seconds + pause)

    def _pause(self, empty_ticks: int) -> float:
        if self.cap is None:
            return self.idle
        return float(min(self.cap, self.idle * 2.0 ** min(empty_ticks - 1, 64)))
