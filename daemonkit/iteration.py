"""What one tick came to."""

from __future__ import annotations

from typing import Any, NamedTuple

from daemonkit.clock import Moment
from daemonkit.errors import Problem


class Iteration(NamedTuple):
    """One tick, as schedules, listeners, status and tests see it. A value: nobody can change it.

    ``seconds``
        How long the tick took, on the monotonic clock.
    ``result``, ``error``
        What ``tick()`` returned, or the exception that it raised.
    ``problem``
        What the error means if the database is behind it, else None.
    ``failures``
        How many ticks in a row have failed by now, this one included; 0 after a good one.
    ``outages``
        How many of those failed because the database was away. They end no process.
    ``pause``
        Seconds of back-off that the failure asks for before the next try; 0 after a good tick.
    ``job``
        The name of the job whose run this was; "" for ``tick()``.
    """

    number: int
    due: Moment
    started: Moment
    seconds: float
    result: Any = None
    error: Exception | None = None
    problem: Problem | None = None
    failures: int = 0
    outages: int = 0
    pause: float = 0.0
    job: str = ""

    @property
    def ended(self) -> Moment:
        return self.started.later(self.seconds)

    @property
    def late(self) -> float:
        """Seconds between the moment when the tick was due and its start."""
        return max(0.0, self.started.monotonic - self.due.monotonic)
