"""When the next tick is due. A schedule is a value: frozen, comparable, printable."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.utils import timezone

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.value import Value

if TYPE_CHECKING:
    from cronsim import CronSim


class Schedule(ABC):
    """Says when the next tick is due, from the last one and from both clocks as they now stand."""

    is_fixed: ClassVar[bool] = False
    """Whether the due times are those of a clock: the same however long the ticks take, and
    whatever they return."""

    @abstractmethod
    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        """The next due moment; it may lie in the past, and then the tick is due at once.

        ``last`` is the last iteration, None before the first; ``begun`` is when the daemon's life
        began. The loop asks again in every slice of its wait, because the wall clock may be set.
        ``NEVER`` means that no tick is due any more.
        """

    @property
    def zone(self) -> tzinfo:
        """The time zone in which people think of this schedule: Django's, unless it has its own."""
        return timezone.get_default_timezone()

    def upcoming(self, now: Moment) -> Iterator[datetime]:
        """The due times to come of a daemon started now whose ticks take no time."""
        last = None
        while True:
            due = self.due(last, now, now if last is None else last.due)
            if due == NEVER:
                return
            yield due.utc.astimezone(self.zone)
            last = Iteration(number=1, due=due, started=due, seconds=0.0)


class Every(Value, Schedule):
    """Every so many seconds, from start to start, the first time at once.

    Runs on the monotonic clock, without drift. A tick that takes longer than the interval is
    followed at once by the next; turns missed meanwhile are not made up.
    """

    is_fixed = True
    seconds: float

    def __init__(
        self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0
    ) -> None:
        for value in (seconds, minutes, hours, days):
            if not isinstance(value, int | float):
                raise ValueError(f"Every() takes numbers, as in Every(seconds=30), not {value!r}")
        total = seconds + 60 * minutes + 3600 * hours + 86400 * days
        if not 0 < total < float("inf"):
            raise ValueError(
                f"Every() needs an interval above zero, such as Every(seconds=30), not {total:g} s"
            )
        super().__init__(seconds=float(total))

    def __str__(self) -> str:
        return f"every {duration_text(self.seconds)}"

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        if last is None:
            return begun
        due = last.due.monotonic + self.seconds
        # After an overlong tick: at once, and counted from there.
        return now.at_monotonic(max(due, last.started.monotonic + last.seconds))


class Aligned(Every):
    """An interval whose due times are the same on every host: the multiples of it by the wall
    clock, since 1970. That of exclusive jobs."""

    def __str__(self) -> str:
        return f"{super().__str__()}, by the wall clock"

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        after = begun.wall if last is None else max(last.due.wall, last.started.wall)
        if (set_by := _set_by(last, begun, now)) < -1:
            after += set_by
        turn = math.floor(after / self.seconds) + 1
        if turn * self.seconds <= after:  # a division that was rounded down
            turn += 1
        return now.at_wall(turn * self.seconds)


class Poll(Value, Schedule):
    """Again at once while ``tick()`` returns something true, else after ``idle`` seconds."""

    idle: float

    def __init__(self, idle: float = 5.0) -> None:
        if not isinstance(idle, int | float) or not 0 < idle < float("inf"):
            raise ValueError(f"Poll() needs an idle time above zero seconds, not {idle!r}")
        super().__init__(idle=idle)

    def __str__(self) -> str:
        return f"poll, idle {duration_text(self.idle)}"

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        if last is None:
            return begun
        pause = 0.0 if last.result else self.idle
        return now.at_monotonic(last.started.monotonic + last.seconds + pause)


_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}  # crontab(5)


class Cron(Value, Schedule):
    """At the times of a cron expression of five fields, by the rules of Debian's cron(8).

    0 and 7 are Sunday; names, ranges, lists and steps work. In the night when the clock goes back
    a fixed time fires once, in the night when it goes forward one that is skipped fires once.
    ``timezone`` is a name such as "Asia/Shanghai"; without it Django's TIME_ZONE holds.
    """

    is_fixed = True
    expression: str
    timezone: str | None

    def __init__(self, expression: str, timezone: str | None = None) -> None:
        if not isinstance(expression, str):
            raise ValueError(f"Cron() takes a string such as '0 3 * * *', not {expression!r}")
        super().__init__(expression=expression, timezone=timezone)
        fields = len(self._fields.split())
        if fields != 5:
            raise ValueError(
                f"a cron string has five fields (minute hour day month weekday), "
                f"{expression!r} has {fields}"
            )
        try:
            zone = ZoneInfo(timezone) if timezone else UTC
        except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
            raise ValueError(
                f"{timezone!r} is no time zone; write a name such as 'Europe/Berlin'"
            ) from None
        if next(self._times(datetime(2024, 1, 1, tzinfo=zone)), None) is None:
            raise ValueError(f"the cron string {expression!r} never comes due")

    @property
    def _fields(self) -> str:
        return _NICKNAMES.get(self.expression.strip().lower(), self.expression)

    @property
    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone) if self.timezone else super().zone

    def __str__(self) -> str:
        return f"cron {self.expression}" + (f" ({self.timezone})" if self.timezone else "")

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        # From the later of due and started: a wait that ended a millisecond early must not find
        # the same time due again, and turns that were missed must not come in a burst.
        after = begun.wall if last is None else max(last.due.wall, last.started.wall)
        set_by = _set_by(last, begun, now)
        if set_by < -1 and (last is None or not self._would_repeat(-set_by)):
            after += set_by  # the clock was set back: what it would have said then
        return now.at_wall(self._next(after))

    def _would_repeat(self, set_back: float) -> bool:
        """Whether a tick is not to be run again when the clock was set back by so many seconds:
        a correction of less than a minute repeats none, one of less than three hours, as in
        cron(8), none whose minute and hour are fixed."""
        minute, hour = self._fields.split()[:2]
        return set_back < 60 or (set_back < 3 * 3600 and "*" not in minute[0] + hour[0])

    def _next(self, after: float) -> float:
        # CronSim, started inside the repeated hour of an autumn night, begins with times that
        # have been: pass over them.
        for candidate in self._times(datetime.fromtimestamp(after, self.zone)):
            if candidate.timestamp() > after:
                return candidate.timestamp()
        raise ValueError(f"the cron string {self.expression!r} never comes due again")

    def _times(self, start: datetime) -> CronSim:
        from cronsim import CronSim, CronSimError  # loaded by those alone who have a cron string

        try:
            return CronSim(self._fields, start)
        except CronSimError as error:
            raise ValueError(f"{self.expression!r} is no cron string: {error}") from None


A_START = 60.0
"""Seconds that may pass between the making of a trigger whose date is "now" and a life's begin."""


class Trigger(Value, Schedule):
    """At the times of a trigger of APScheduler's, which knows only the wall clock: when that is
    set, an interval moves with it, and times of day that come again are times again."""

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
    def is_interval(self) -> bool:
        return hasattr(self.trigger, "interval_length")

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        set_by = _set_by(last, begun, now)
        if set_by > -1 and not (set_by > 1 and self.is_interval):
            set_by = 0.0
        after = set_by + (begun.wall if last is None else max(last.due.wall, last.started.wall))
        previous = None if last is None else datetime.fromtimestamp(after, self.zone)
        look = datetime.fromtimestamp(after if last is None else max(after, now.wall), self.zone)
        found = self.trigger.get_next_fire_time(previous, look)
        if found is None or (last is None and found.timestamp() < after - A_START):
            return NEVER  # a date that has been is no reason to run at every start
        return now.at_wall(found.timestamp())


def as_schedule(value: Any) -> Schedule:
    """A schedule as it is, a trigger of APScheduler's as one. ``ValueError`` for all else."""
    if isinstance(value, Schedule):
        return value
    if hasattr(value, "get_next_fire_time") and not isinstance(value, type):
        return Trigger(value)
    raise ValueError(
        f"schedule must be Every(...), Cron(...), Poll(...) or a trigger of APScheduler's, "
        f"not {value!r}"
    )


def _set_by(last: Iteration | None, begun: Moment, now: Moment) -> float:
    """How many seconds the wall clock was set forward since the last tick; below zero: back."""
    then = begun if last is None else last.started
    return (now.wall - now.monotonic) - (then.wall - then.monotonic)


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+|\d+(?:\.\d+)?"


def parse_duration(text: str | float) -> float:
    """Seconds of "30", "30s", "5m", "1h30m" or "500ms". Raises ``ValueError`` for anything else."""
    if type(text) in (int, float) and 0 <= float(text) < math.inf:
        return float(text)
    if not re.fullmatch(_DURATION, str(text).strip()):
        raise ValueError(f"a duration such as 30s, 5m, 1h30m or 500ms, not {str(text)!r}")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", str(text))
    return float(sum(float(number) * _UNITS[unit or "s"] for number, unit in parts))


def duration_text(seconds: float) -> str:
    """The shortest text that ``parse_duration`` reads back: 5400 is "1h30m", 0.5 is "500ms"."""
    if round(seconds, 3) < 1:
        return f"{seconds * 1000:.3g}ms"
    whole, fraction = divmod(round(seconds, 3), 1)
    minutes, second = divmod(int(whole), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    parts = [f"{days}d" * bool(days), f"{hour}h" * bool(hour), f"{minute}m" * bool(minute)]
    if second or fraction:
        parts.append(f"{second + fraction:g}s")
    return "".join(parts)
