"""APScheduler's triggers as schedules."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule, clock_shift, not_same_everywhere
from daemonkit.schedules.value import Value

START_ALLOWANCE = 60.0
"""Seconds that may pass between creating a trigger whose date is "now" and the begin of a life."""


class Trigger(Value, Schedule):
    """At the times of an APScheduler trigger.

    Triggers use only the wall clock: when it is set, an interval moves with it, and a time of day
    that it shows again is due again.
    """

    is_fixed = True
    trigger: Any

    def __init__(self, trigger: Any) -> None:
        super().__init__(trigger=trigger)

    def __str__(self) -> str:
        return str(self.trigger)

    @property
    def zone(self) -> tzinfo:
        return getattr(self.trigger, "timezone", None) or super().zone

    @property
    def _has_interval(self) -> bool:
        return hasattr(self.trigger, "interval_length")

    def judge(self, result: Any) -> None:
        """None: the next due time does not depend on a tick's result."""

    def same_everywhere(self) -> Schedule:
        if self._has_interval or getattr(self.trigger, "jitter", None):
            raise not_same_everywhere(self)
        return self

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        moved = clock_shift(last, begun, now)
        if moved > -1 and not (moved > 1 and self._has_interval):
            moved = 0.0
        after = moved + (begun.wall if last is None else max(last.due.wall, last.started.wall))
        previous = None if last is None else datetime.fromtimestamp(after, self.zone)
        look = datetime.fromtimestamp(after if last is None else max(after, now.wall), self.zone)
        found = self.trigger.get_next_fire_time(previous, look)
        if found is None or (last is None and found.timestamp() < after - START_ALLOWANCE):
            return NEVER  # or a date in the past would run at every start
        return now.at_wall(found.timestamp())


def as_schedule(value: Any) -> Schedule:
    """A schedule unchanged, or an APScheduler trigger as one. ``ValueError`` for anything else."""
    if isinstance(value, Schedule):
        return value
    if hasattr(value, "get_next_fire_time") and not isinstance(value, type):
        return Trigger(value)
    raise ValueError(
        f"schedule must be Every(...), Cron(...), Poll(...) or a trigger of APScheduler's, "
        f"not {value!r}"
    )
