"""A daemon's whole loop on a clock that passes at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.core.management import call_command

from daemonkit import BaseDaemonCommand, Iteration, Schedule
from daemonkit.signals import iteration_finished
from daemonkit.testing import FakeClock


class SetClock(FakeClock):
    """A wall clock that somebody sets ``by`` so many seconds when ``after`` seconds have passed."""

    def __init__(self, wall: float, *, after: float, by: float) -> None:
        super().__init__(wall)
        self._sets = [(after, by)]

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        while self._sets and self.moment().monotonic >= self._sets[0][0]:
            self.step(self._sets.pop(0)[1])


def live(
    schedule: Schedule | None,
    clock: FakeClock,
    ticks: int | None = None,
    tick: Callable[[], Any] = lambda: None,
    **options: Any,
) -> list[Iteration]:
    """Run a daemon with this schedule and this ``tick``, and return what its ticks came to."""

    class Command(BaseDaemonCommand):
        def tick(self) -> Any:
            return tick()

    iterations: list[Iteration] = []

    def note(iteration: Iteration, **_: Any) -> None:
        iterations.append(iteration)

    iteration_finished.connect(note, sender=Command)
    call_command(Command(), schedule=schedule, clock=clock, max_ticks=ticks, **options)
    return iterations


def wall(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """What ``time.time()`` says at this time of day; ``fold=1``: the second one of an autumn night."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def times(iterations: list[Iteration], zone: str = "UTC") -> list[str]:
    """When ticks started, by the wall clock as it then stood: "Sun 02:30+0100"."""
    started = [iteration.started.utc.astimezone(ZoneInfo(zone)) for iteration in iterations]
    return [moment.strftime("%a %H:%M%z") for moment in started]


def starts(iterations: list[Iteration]) -> list[float]:
    """When ticks started, in seconds since the daemon's begin."""
    return [round(iteration.started.monotonic, 6) for iteration in iterations]
