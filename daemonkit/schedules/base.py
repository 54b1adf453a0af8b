"""``Schedule``: a value that says when the next tick is due."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any, ClassVar

from django.utils import timezone

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration


class Schedule(ABC):
    """Says when the next tick is due, from the last iteration and both clocks."""

    is_fixed: ClassVar[bool] = False
    """Whether due times depend on a clock only, not on how long ticks take or what they return."""

    is_interval: ClassVar[bool] = False
    """Whether the due times are counted from the start of the process, on the monotonic clock."""

    has_times: ClassVar[bool] = True
    """Whether a due time says something about its work, such as the day of a report."""

    offset: float = 0.0
    """Seconds by which each due time is later than the schedule says: its jitter."""

    runs_once: int = 1
    """How many ticks or runs ``--once`` has."""

    jobs: tuple[Any, ...] = ()
    """The jobs that have these due times; empty for the schedule of a ``tick()``."""

    @abstractmethod
    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        """The next due time. If it has passed, the tick is due at once.

        ``last`` is the last iteration, None before the first; ``begun`` is when the daemon's life
        began. The loop asks again in every slice of its wait, because the wall clock may be set.
        ``NEVER`` means that no further tick is due.
        """

    def judge(self, result: Any) -> Any:
        """The part of a tick's result that ``due()`` needs. It is kept until the next tick.

        Called once, inside the tick's unit of work: an error that it raises fails the tick. Most
        schedules need nothing and return None. Returning the result keeps it in memory.
        """
        return result

    def for_one_life(self) -> Schedule:
        """What one life asks for its due times. It may have a memory."""
        return self

    @property
    def is_shareable(self) -> bool:
        """Whether several workers can share the work, so that each does a different part of it."""
        return False

    def same_everywhere(self) -> Schedule:
        """A version of this schedule that has the same due times in every process on every host.

        Raises ``ValueError`` if there is none.
        """
        if self.is_fixed:
            return self
        raise not_same_everywhere(self)

    @property
    def zone(self) -> tzinfo:
        """The time zone of this schedule: its own, or else Django's TIME_ZONE."""
        return timezone.get_default_timezone()

    def upcoming(self, now: Moment) -> Iterator[datetime]:
        """The coming due times of a daemon that starts now and whose ticks take no time."""
        last = None
        while True:
            due = self.due(last, now, now if last is None else last.due)
            if due == NEVER:
                return
            yield due.utc.astimezone(self.zone)
            last = Iteration(number=1, due=due, started=due, seconds=0.0)


def clock_shift(last: Iteration | None, begun: Moment, now: Moment) -> float:
    """By how many seconds the wall clock was set forward since the last tick; negative: back."""
    then = begun if last is None else last.started
    return (now.wall - now.monotonic) - (then.wall - then.monotonic)


def not_same_everywhere(schedule: Schedule) -> ValueError:
    return ValueError(
        f"exclusive=True makes no sense with {schedule}, on whose times no two processes "
        f"would agree; use Every(...) or Cron(...)"
    )
