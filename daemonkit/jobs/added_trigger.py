"""A schedule of daemonkit as APScheduler's trigger."""

from __future__ import annotations

from datetime import datetime

from apscheduler.triggers.base import BaseTrigger

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule


class ScheduleTrigger(BaseTrigger):  # type: ignore[misc]
    """``Every`` or ``Cron`` as a trigger."""

    __slots__ = ("interval_length", "schedule")

    def __init__(self, schedule: Schedule) -> None:
        if not schedule.is_fixed:
            raise ValueError(f"add_job() takes no {schedule}: write a method under @job for it")
        self.schedule = schedule
        if schedule.is_interval:
            self.interval_length = schedule.seconds  # type: ignore[attr-defined]

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        moment, last = _moment(now), None
        if previous is not None:
            before = _moment(previous)
            last = Iteration(1, before, before, 0.0)
        due = self.schedule.due(last, moment, moment)
        return None if due == NEVER else datetime.fromtimestamp(due.wall, self.schedule.zone)

    def __str__(self) -> str:
        return str(self.schedule)


def _moment(time: datetime) -> Moment:
    seconds = time.timestamp()  # slow in a zone
    return Moment(seconds, seconds)
