"""The dispatcher: what is to run now, and what is skipped and why.

It is asked with a moment, and neither waits nor reads a clock. Only ``run_ended()`` is called from
threads of the pool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from daemonkit.clock import NEVER, Moment
from daemonkit.jobs.agenda import Agenda
from daemonkit.jobs.record import Record
from daemonkit.jobs.run import Run
from daemonkit.jobs.scheduled_job import ScheduledJob, Skip
from daemonkit.jobs.skip_reason import SkipReason
from daemonkit.jobs.wall_clock import WallClock

MAX_PASSED = 10
"""Of the due times that have passed together, how many are announced: the newest. More would push
what ran before out of the ledger."""


class Dispatcher:
    """All jobs of a daemon, in the order in which they are due.

    ``since`` is the moment from which on the schedules count, ``look_again`` the number of seconds
    after which a poller that may not run now is asked again.
    """

    def __init__(
        self,
        record: Record,
        wall_clock: WallClock,
        since: Moment,
        *,
        look_again: float,
        nudge: Callable[[], None],
    ) -> None:
        self.jobs: list[ScheduledJob] = []
        self.begun = 0
        """How many runs were handed out."""
        self._record, self._wall_clock, self._since = record, wall_clock, since
        self._look_again, self._nudge = look_again, nudge
        self._agenda = Agenda[ScheduledJob]()
        self._ended: deque[ScheduledJob] = deque()

    def start(self, now: Moment, begun: Moment, newest: Mapping[str, datetime]) -> None:
        """Find the first due time of each job. ``newest`` is the last one of each that has a row,
        and ``begun`` is when the process began."""
        for job in self.jobs:
            job.times.start(now)
            if job.name in newest:
                self._look_back(job, begun.at_wall(newest[job.name].timestamp()), begun)
            self._agenda.put(job, job.times.next)

    def _look_back(self, job: ScheduledJob, last: Moment, begun: Moment) -> None:
        """Skip what passed before the process began, or catch up on the last of it."""
        if job.schedule.is_interval or not job.is_fixed:
            return  # its due times begin with the process
        passed = job.times.between(last, begun, MAX_PASSED)
        if passed and job.job.catch_up and not job.is_too_late(passed[-1], begun):
            job.times.go_on_at(passed.pop())
        for due in passed:
            self._record.skipped(job.name, due, SkipReason.DOWN)

    def runs(self, now: Moment, reason_to_wait: str, since: Moment, limit: int | None) -> list[Run]:
        """The runs that are to begin now, and no more than ``limit`` in the whole life.

        ``reason_to_wait`` says why none may begin, and must have been asked before ``since``: when
        it ends, the schedules may count anew.
        """
        self._ask_schedules_again(now, reason_to_wait, since)
        ready: list[Run] = []
        for job, passed in self._due(now):
            if limit and self.begun >= limit:
                break
            if len(passed) > 1:
                self._skip_older(job, passed[:-1], now, reason_to_wait)
            outcome = job.decide(passed[-1], now, reason_to_wait) if passed else None
            if isinstance(outcome, Run):
                ready.append(outcome)
                self.begun += 1
            elif outcome is not None:
                self._skip(job, outcome, now)
            self._agenda.put(job, job.times.next)
        return ready

    def _due(self, now: Moment) -> Iterator[tuple[ScheduledJob, list[Moment]]]:
        """The jobs that have something to decide, with the due times that have come."""
        while self._ended:
            job = self._ended.popleft()
            yield job, job.after_run(now)
        for job in self._agenda.pop(now):
            yield job, job.times.take(now, MAX_PASSED)

    def _ask_schedules_again(self, now: Moment, reason_to_wait: str, since: Moment) -> None:
        """Ask them again if the wall clock was set, or if this process has come to lead.

        A new leader does not run what came due while another process led.
        """
        was_set = self._wall_clock.was_set(now)
        restarts = since is not self._since and not reason_to_wait
        if restarts:
            self._since = since
        elif not was_set:
            return
        for job in self.jobs:
            job.times.restart(since, now) if restarts else job.times.ask_again(now)
            self._agenda.put(job, job.times.next)

    def _skip_older(
        self, job: ScheduledJob, passed: list[Moment], now: Moment, reason_to_wait: str
    ) -> None:
        """Of the due times that have passed together only the newest may be run."""
        for due in passed:
            reason = job.skip_reason(due, now, reason_to_wait) or SkipReason.GRACE
            self._record.skipped(job.name, due, reason)

    def _skip(self, job: ScheduledJob, skip: Skip, now: Moment) -> None:
        if job.is_fixed:
            self._record.skipped(job.name, *skip)
        else:  # nothing else would make it due again
            job.times.go_on_at(now.later(self._look_again))

    def next_due(self) -> Moment:
        """When something is next to be decided; ``NEVER`` if nothing is."""
        return self._agenda.next_due()

    @property
    def has_work(self) -> bool:
        """Whether a run has ended whose end is still to be looked at."""
        return bool(self._ended)

    @property
    def is_at_rest(self) -> bool:
        """Whether no job runs or waits for a thread."""
        return all(job.is_idle for job in self.jobs)

    @property
    def is_over(self) -> bool:
        """Whether nothing will be due any more."""
        return self.next_due() == NEVER and self.is_at_rest and not self._ended

    def run_ended(self, job: ScheduledJob) -> None:
        """The end of a run may make its job due. From a thread of the pool."""
        self._ended.append(job)
        self._nudge()
