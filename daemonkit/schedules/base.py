"""What a schedule is: a value that says when the next tick is due."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any, ClassVar

from django.utils import timezone

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration


class Schedule(ABC):
    """Says when the next tick is due, from the last one and from both clocks as they now stand."""

    is_fixed: ClassVar[bool] = False
    """Whether the due times are those of a clock: the same however long the ticks take, and
    whatever they return."""

    is_interval: ClassVar[bool] = False
    """Whether the due times are counted from the start of the process, on the monotonic clock."""

    jobs: tuple[Any, ...] = ()
    """The jobs whose due times these are; none for the schedule of a ``tick()``."""

    @abstractmethod
    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        """The next due moment; it may lie in the past, and then the tick is due at once.

        ``last`` is the last iteration, None before the first; ``begun`` is when the daemon's life
        began. The loop asks again in every slice of its wait, because the wall clock may be set.
        ``NEVER`` means that no tick is due any more.
        """

    def judge(self, result: Any) -> Any:
        """What ``due()`` has to know of a tick's result, which is kept until the next tick.

        Called once, inside the tick's unit of work: what it raises is the tick's failure. Most
        schedules need nothing of it. One that returns the result itself keeps it in memory.
        """
        return result

    @property
    def is_shareable(self) -> bool:
        """Whether several workers can share the work, each of them doing another part of it."""
        return False

    def same_everywhere(self) -> Schedule:
        """This schedule, with due times that are the same in every process on every host.

        Raises ``ValueError`` if it cannot have them.
        """
        if self.is_fixed:
            return self
        raise no_agreement(self)

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


def set_by(last: Iteration | None, begun: Moment, now: Moment) -> float:
    """How many seconds the wall clock was set forward since the last tick; below zero: back."""
    then = begun if last is None else last.started
    return (now.wall - now.monotonic) - (then.wall - then.monotonic)


def no_agreement(schedule: Schedule) -> ValueError:
    return ValueError(
        f"exclusive=True makes no sense with {schedule}, on whose times no two processes "
        f"would agree; use Every(...) or Cron(...)"
    )
