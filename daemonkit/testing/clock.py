"""For a project's own tests of its daemons."""

from __future__ import annotations

from collections.abc import Callable

from daemonkit.clock import Clock, Moment


class FakeClock(Clock):
    """A clock that stands still until somebody waits; then the time has passed at once.

    ``call_command("report", max_ticks=3, clock=FakeClock())`` runs three days of a daily daemon in
    no time. ``step(seconds)`` sets the wall clock, as an administrator or NTP would.
    """

    def __init__(self, wall: float = 0.0) -> None:
        self._monotonic = 0.0
        self._wall = wall
        self.waits: list[float] = []

    def moment(self) -> Moment:
        return Moment(self._monotonic, self._wall)

    def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
        told_to_stop(0.0)
        self.waits.append(seconds)
        self.advance(seconds)

    def at_rest(self, rest: Callable[[], None]) -> None:
        rest()  # jobs take no time, unless they say so

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._monotonic += seconds
        self._wall += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self._wall += seconds
