"""``Poll``: again at once while there is work, after a pause when there is none."""

from __future__ import annotations

import logging
from typing import Any

from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.durations import duration_text
from daemonkit.schedules.value import Value

logger = logging.getLogger("daemonkit")

SPINNING_TICKS = 10
"""How many ticks in a row may find nothing and take less than ``SPINNING_SECONDS`` each."""

SPINNING_SECONDS = 0.001
SPINNING_PAUSE = 0.05
"""Seconds between the ticks of a loop that would otherwise spin."""


class Poll(Value, Schedule):
    """Due again at once if ``tick()`` returns a true value, otherwise after ``idle`` seconds.

    ``Poll(idle=0)`` is for ticks that wait by themselves, as for messages of a broker. With ``cap``
    the pauses of a poller grow while its queue is empty: each is twice the one before, and none is
    longer than ``cap`` seconds.
    """

    has_times = False
    idle: float
    cap: float | None = None

    def __init__(self, idle: float = 5.0, cap: float | None = None) -> None:
        if not isinstance(idle, int | float) or not 0 <= idle < float("inf"):
            raise ValueError(f"Poll() needs an idle time of zero seconds or more, not {idle!r}")
        if cap is None:
            super().__init__(idle=idle)
            return
        if not isinstance(cap, int | float) or not idle <= cap < float("inf"):
            raise ValueError(f"Poll() needs a cap of at least its idle time, not {cap!r}")
        if not idle:
            raise ValueError("Poll() with a cap needs an idle time above zero, which grows to it")
        super().__init__(idle=idle, cap=cap)

    def __str__(self) -> str:
        growth = f" to {duration_text(self.cap)}" if self.cap is not None else ""
        return f"poll, idle {duration_text(self.idle)}{growth}"

    def judge(self, result: Any) -> Any:
        """Whether the tick found work, so that there may be more. What counts its empty ticks is
        kept as it is."""
        return result if self.cap is not None and hasattr(result, "empty_ticks") else bool(result)

    def for_one_life(self) -> Schedule:
        return self if self.idle else Restrained(self)

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


class Restrained(Schedule):
    """``Poll(idle=0)`` for one life: pauses between ticks that neither find anything nor wait."""

    has_times = False

    def __init__(self, poll: Poll) -> None:
        self._poll = poll
        self._number = self._spinning = 0
        self._has_warned = False

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        due = self._poll.due(last, begun, now)
        if last is None:
            return due
        if last.number != self._number:
            self._number = last.number
            is_quick = last.seconds < SPINNING_SECONDS and not last.result and last.error is None
            self._spinning = self._spinning + 1 if is_quick else 0
        if self._spinning < SPINNING_TICKS:
            return due
        self._warn()
        return due.later(SPINNING_PAUSE)

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%d ticks in a row found nothing within a millisecond each: with Poll(idle=0) a "
                "tick must wait by itself, as by self.wait_for(socket, seconds). The loop now "
                "pauses for 50 ms after such ticks",
                SPINNING_TICKS,
            )
