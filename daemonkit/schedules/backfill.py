"""``Backfill``: due times of the past, one after the other."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.value import Value

MAX_TIMES = 10_000
"""How many due times one backfill may have."""


class Backfill(Value, Schedule):
    """The due times of ``usual`` in the past that are run now."""

    usual: Schedule
    times: tuple[float, ...]

    def __init__(self, usual: Schedule, times: tuple[float, ...]) -> None:
        super().__init__(usual=usual, times=times)

    def __str__(self) -> str:
        return f"{len(self.times)} due time{'s' * (len(self.times) != 1)} of {self.usual}"

    @property
    def runs_once(self) -> int:  # type: ignore[override]
        return len(self.times)

    @property
    def zone(self) -> tzinfo:
        return self.usual.zone

    def judge(self, result: Any) -> None:
        """None: the next due time does not depend on a tick's result."""

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        later = (time for time in self.times if last is None or time > last.due.wall + 0.0005)
        time = next(later, None)
        return NEVER if time is None else now.at_wall(time)


def backfill(usual: Schedule, text: str, now: float) -> Backfill:
    """The due times of a schedule that ``text`` names: "2026-11-01 03:00", or "FROM..TO" with both
    ends. A time without an offset is in the zone of the schedule.

    Raises ``ValueError``, in one sentence, for what is no due time of the past.
    """
    if not usual.is_fixed or usual.is_interval:
        raise ValueError(f"--due makes no sense with {usual}, which has no due times in the past")
    first, separator, last = text.partition("..")
    begin = _time(first, usual.zone)
    end = _time(last, usual.zone) if separator else begin
    if end > now:
        raise ValueError(f"--due {text} is in the future")
    times: list[float] = []
    after = begin - 0.001
    while (due := usual.due(None, Moment(after, after), Moment(after, after)).wall) <= end:
        times.append(due)
        after = due
        if len(times) > MAX_TIMES:
            raise ValueError(f"--due {text} has more than {MAX_TIMES} due times: take a part of it")
    if not times:
        between = "there is no due time in" if separator else "there is no due time at"
        raise ValueError(f"{between} {text}: the schedule is {usual}")
    return Backfill(usual, tuple(times))


def _time(text: str, zone: tzinfo) -> float:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"--due takes a time such as '2026-11-01 03:00', or FROM..TO, not {text!r}"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
