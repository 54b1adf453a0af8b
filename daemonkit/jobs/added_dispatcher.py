"""The dispatcher of a daemon with ``add_jobs()``: its ``@job`` methods, and what was added."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from daemonkit.clock import Moment
from daemonkit.jobs.added_jobs import AddedJobs
from daemonkit.jobs.dispatcher import Dispatcher
from daemonkit.jobs.run import Run
from daemonkit.jobs.wall_clock import WallClock


class AddedDispatcher(Dispatcher):
    """All jobs of a daemon with ``add_jobs()``."""

    added: AddedJobs
    """What ``self.scheduler`` is."""

    def start(self, now: Moment, begun: Moment, newest: Mapping[str, datetime]) -> None:
        self.added.open()
        super().start(now, begun, newest)

    def runs(self, now: Moment, reason_to_wait: str, limit: int | None) -> list[Run]:
        ready = super().runs(now, reason_to_wait, limit)
        left = limit - self.begun if limit and not self.added.life.once else None
        added = self.added.runs(now, reason_to_wait, left)
        self.begun += len(added)
        return ready + added

    def next_due(self) -> Moment:
        return min(super().next_due(), self.added.next_due())

    @property
    def is_at_rest(self) -> bool:
        return super().is_at_rest and self.added.is_at_rest

    @property
    def is_over(self) -> bool:
        return self.added.is_over and super().is_over

    def running(self) -> list[Run]:
        return super().running() + self.added.running()

    def close(self) -> None:
        self.added.close()


def with_added_jobs(scheduler: Any, wall_clock: WallClock) -> Callable[..., AddedDispatcher]:
    """What makes the dispatcher of this scheduler."""

    def make(**details: Any) -> AddedDispatcher:
        record, since = scheduler.record, scheduler.life.pace.since
        dispatcher = AddedDispatcher(record, wall_clock, since, **details)
        dispatcher.added = AddedJobs(scheduler, record, wall_clock)
        return dispatcher

    return make


def scheduler_of(daemon: Any) -> AddedJobs:
    """``self.scheduler`` of a daemon that runs."""
    dispatcher = getattr(daemon._scheduler, "dispatcher", None)
    if not isinstance(dispatcher, AddedDispatcher):
        raise RuntimeError(
            "self.scheduler is for a daemon that runs and has add_jobs(self, scheduler): write one"
        )
    return dispatcher.added
