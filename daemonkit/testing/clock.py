"""A clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from daemonkit.clock import Clock, Moment

SHORTEST_STEP = 0.01
"""Seconds. A step that asks to be called at once must not stop the clock."""


class FakeClock(Clock):
    """A clock that stands still until the daemon waits. A wait moves it forward and ends at once.

    ``call_command("report", max_ticks=3, clock=FakeClock())`` runs three days of a daily daemon in
    no time. ``wall`` is the start of the wall clock: an aware datetime, or seconds since 1970.
    ``step(seconds)`` sets the wall clock, as an administrator or NTP would. Raises ``ValueError``
    for a datetime without a time zone.
    """

    def __init__(self, wall: datetime | float = 0.0) -> None:
        self._monotonic = 0.0
        self._wall = seconds_since_1970(wall)
        self._steps: dict[Callable[[], float], float] = {}
        """What is called regularly, and when it is due next."""
        self.waits: list[float] = []
        """How long each wait took, in seconds."""

    def moment(self) -> Moment:
        return Moment(self._monotonic, self._wall)

    def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
        told_to_stop(0.0)
        self.waits.append(seconds)
        self.advance(seconds)

    def at_rest(self, rest: Callable[[], None]) -> None:
        rest()  # on this clock jobs take no time

    def since_boot(self) -> float:
        return self._monotonic

    def call_regularly(self, step: Callable[[], float]) -> bool:
        self._steps[step] = self._monotonic + max(step(), SHORTEST_STEP)
        return True

    def stop_calling(self, step: Callable[[], float]) -> None:
        self._steps.pop(step, None)

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks. A lease is renewed on the way."""
        until = self._monotonic + seconds
        while self._steps and (due := min(self._steps.values())) <= until:
            self._move(due - self._monotonic)
            for step in [step for step, at in self._steps.items() if at <= due]:
                self._steps[step] = due + max(step(), SHORTEST_STEP)
        self._move(until - self._monotonic)

    def _move(self, seconds: float) -> None:
        self._monotonic += seconds
        self._wall += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back if ``seconds`` is negative."""
        self._wall += seconds


def seconds_since_1970(wall: datetime | float) -> float:
    """An aware datetime as ``time.time()`` returns it. Raises ``ValueError`` for a naive one."""
    if not isinstance(wall, datetime):
        return float(wall)
    if wall.tzinfo is None:
        raise ValueError(f"{wall} has no time zone: write datetime(..., tzinfo=UTC)")
    return wall.timestamp()
