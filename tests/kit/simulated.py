"""A daemon's whole loop on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command

from daemonkit import BaseDaemonCommand, Iteration, Schedule
from daemonkit.signals import iteration_finished
from daemonkit.testing import FakeClock


class SetClock(FakeClock):
    """A clock whose wall time is set forward ``by`` seconds after ``after`` seconds."""

    def __init__(self, wall: float, *, after: float, by: float) -> None:
        super().__init__(wall)
        self._after, self._by = after, by

    def advance(self, seconds: float) -> None:
        before = self.moment().monotonic
        super().advance(seconds)
        if before < self._after <= before + seconds:
            self.step(self._by)


def live(
    schedule: Schedule | None,
    clock: FakeClock,
    ticks: int | None = None,
    tick: Callable[[], Any] = lambda: None,
    **options: Any,
) -> list[Iteration]:
    """Run a daemon with this schedule and this ``tick``, and return its iterations."""

    class Command(BaseDaemonCommand):
        def tick(self) -> Any:
            if len(iterations) > 5000:
                pytest.fail("the daemon ticks in a burst without an end")
            return tick()

    iterations: list[Iteration] = []

    def note(iteration: Iteration, **_: Any) -> None:
        iterations.append(iteration)

    iteration_finished.connect(note, sender=Command)
    settings: dict[str, Any] = {"schedule": schedule, "clock": clock, "pulse": 60, **options}
    call_command(Command(), max_ticks=ticks, raise_errors=False, **settings)
    return iterations


def wall(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """A local time as a timestamp. ``fold=1`` means the second of two equal hours."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def times(iterations: list[Iteration], zone: str = "UTC") -> list[str]:
    """When ticks started, by the wall clock at that time: "Sun 02:30+0100"."""
    started = [iteration.started.utc.astimezone(ZoneInfo(zone)) for iteration in iterations]
    return [moment.strftime("%a %H:%M%z") for moment in started]


def starts(iterations: list[Iteration]) -> list[float]:
    """When ticks started, in seconds since the daemon started."""
    return [round(iteration.started.monotonic, 6) for iteration in iterations]
