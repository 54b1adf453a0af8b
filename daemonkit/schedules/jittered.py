"""``Jittered``: a schedule whose due times are all later by the same offset."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, tzinfo
from itertools import islice, pairwise
from typing import Any

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.durations import duration_text
from daemonkit.schedules.value import Value

CHECKED_TIMES = 100
"""How many due times are looked at for the shortest interval between two of them."""


def offset_of(*names: str, longest: float) -> float:
    """A number of seconds from 0 to ``longest`` that is the same for these names each time."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return round(int.from_bytes(digest[:8], "big") / 2**64 * longest, 3)


def jittered(schedule: Schedule, longest: float, *names: str) -> Schedule:
    """The schedule with an offset of at most ``longest`` seconds, by a hash of ``names``.

    Raises ``ValueError`` for a schedule without fixed times, and for an offset that could reach the
    next due time.
    """
    if not schedule.is_fixed:
        raise ValueError(f"jitter makes no sense with {schedule}, which has no fixed times")
    start = Moment(0.0, datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    times = list(islice(schedule.upcoming(start), CHECKED_TIMES))
    gaps = [(after - before).total_seconds() for before, after in pairwise(times)]
    if gaps and longest >= min(gaps):
        raise ValueError(
            f"a jitter of {duration_text(longest)} is not shorter than the interval of "
            f"{duration_text(min(gaps))} between two due times: make it shorter"
        )
    return Jittered(schedule, offset_of(*names, longest=longest))


class Jittered(Value, Schedule):
    """``usual``, each due time later by ``offset`` seconds."""

    usual: Schedule
    offset: float

    def __init__(self, usual: Schedule, offset: float) -> None:
        super().__init__(usual=usual, offset=offset)

    def __str__(self) -> str:
        return f"{self.usual} + {duration_text(self.offset)}"

    @property
    def is_fixed(self) -> bool:  # type: ignore[override]
        return self.usual.is_fixed

    @property
    def is_interval(self) -> bool:  # type: ignore[override]
        return self.usual.is_interval

    @property
    def seconds(self) -> float:
        """The interval, for a schedule that has one."""
        seconds: float = self.usual.seconds  # type: ignore[attr-defined]
        return seconds

    @property
    def zone(self) -> tzinfo:
        return self.usual.zone

    def judge(self, result: Any) -> Any:
        return self.usual.judge(result)

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        earlier = begun.later(-self.offset)
        if last is not None:
            started = last.started.later(-self.offset)
            last = last._replace(due=last.due.later(-self.offset), started=started)
        elif self.usual.is_interval:
            earlier = begun
        due = self.usual.due(last, earlier, now.later(-self.offset))
        return due if due == NEVER else due.later(self.offset)
