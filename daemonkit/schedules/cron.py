"""``Cron``: the times of a cron expression."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule, clock_shift
from daemonkit.schedules.value import Value

if TYPE_CHECKING:
    from cronsim import CronSim

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

    0 and 7 are Sunday; names, ranges, lists and steps work. A fixed time that occurs twice in the
    night when the clock goes back fires once. One that is skipped in the night when the clock goes
    forward fires once, too. ``timezone`` is a name such as "Asia/Shanghai"; the default is Django's
    TIME_ZONE.
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

    def judge(self, result: Any) -> None:
        """None: the next due time does not depend on a tick's result."""

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        # From the later of due and started: a wait that ended a millisecond early must not find
        # the same due time again, and missed due times must not run in a burst.
        after = begun.wall if last is None else max(last.due.wall, last.started.wall)
        set_back = clock_shift(last, begun, now)
        if set_back < -1 and (last is None or not self._would_repeat(-set_back)):
            after += set_back  # the time that a clock set back earlier would have shown
        return now.at_wall(self._next(after))

    def _would_repeat(self, set_back: float) -> bool:
        """Whether a tick would wrongly run again after the clock was set back by ``set_back``
        seconds.

        A correction of less than a minute repeats no tick. As in cron(8), one of less than three
        hours repeats none whose minute and hour are fixed.
        """
        minute, hour = self._fields.split()[:2]
        return set_back < 60 or (set_back < 3 * 3600 and "*" not in minute[0] + hour[0])

    def _next(self, after: float) -> float:
        # Started in the repeated hour of an autumn night, CronSim begins with times that have
        # passed: skip them.
        for candidate in self._times(datetime.fromtimestamp(after, self.zone)):
            if candidate.timestamp() > after:
                return candidate.timestamp()
        raise ValueError(f"the cron string {self.expression!r} never comes due again")

    def _times(self, start: datetime) -> CronSim:
        from cronsim import CronSim, CronSimError  # not for a daemon without cron

        try:
            return CronSim(self._fields, start)
        except CronSimError as error:
            raise ValueError(f"{self.expression!r} is no cron string: {error}") from None
