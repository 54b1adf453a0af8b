"""The schedule of ``--once``."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule


class Once(Schedule):
    """One tick, due at once. ``usual`` is the schedule that it replaces for this run."""

    def __init__(self, usual: Schedule | None = None) -> None:
        self._usual = usual

    @property
    def zone(self) -> tzinfo:
        return super().zone if self._usual is None else self._usual.zone

    def __str__(self) -> str:
        return "once"

    def judge(self, result: Any) -> None:
        """None: no tick follows."""

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        return begun if last is None else NEVER
