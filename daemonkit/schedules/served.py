"""The schedule of a daemon that has ``serve()``."""

from __future__ import annotations

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule


class Served(Schedule):
    """Due at once, and then until it is told to stop."""

    has_times = False

    def __str__(self) -> str:
        return "until it is told to stop"

    @property
    def is_shareable(self) -> bool:
        return True  # each connection is accepted by one worker

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        return begun if last is None else NEVER
