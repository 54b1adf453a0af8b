"""The dispatcher: decides which jobs run now, and which due times are skipped and why.

Its methods take the current moment. It neither waits nor reads a clock. Only ``run_ended()`` is
called from threads of the pool."""

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
"""How many due times that passed together are announced as skipped, the newest ones. More would
push the rows of earlier runs out of the ledger."""


class Dispatcher:
    """All jobs of a daemon, in the order in which they are due.

    ``since`` is the moment from which the schedules count. ``look_again`` is the number of seconds
    after which a poller that may not run now is due again.
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
        """How many runs have been started."""
        self._record, self._wall_clock, self._since = record, wall_clock, since
        self._look_again, self._nudge = look_again, nudge
        self._agenda = Agenda[ScheduledJob]()
        self._begun = since.utc
        self._ended: deque[ScheduledJob] = deque()
        self._ordered: dict[ScheduledJob, None] = {}

    def start(self, now: Moment, begun: Moment, newest: Mapping[str, datetime]) -> None:
        """Set the first due time of each job. ``newest`` holds the newest due time in the ledger
        for each job, and ``begun`` is when the process began."""
        self._begun = begun.utc
        for job in self.jobs:
            job.times.start(now)
            if job.name in newest:
                self._look_back(job, newest[job.name], begun)
            self._agenda.put(job, job.next_due)

    def _look_back(self, job: ScheduledJob, newest: datetime, begun: Moment) -> None:
        """Skip the due times that passed before the process began, or before it became the leader;
        or catch up on the last one."""
        last = begun.at_wall(newest.timestamp()).later(job.schedule.offset)
        if job.schedule.is_interval or not job.is_fixed:
            return  # its due times begin with the process
        passed = job.times.between(last, begun, MAX_PASSED)
        if passed and job.job.catch_up and not job.is_too_late(passed[-1], begun):
            job.times.go_on_at(passed.pop())
        for due in passed:
            self._record.skipped(job.name, due, SkipReason.DOWN)

    @property
    def catches_up(self) -> bool:
        """Whether a job catches up on a due time that was missed."""
        return any(job.job.catch_up for job in self.jobs)

    def restarts(self, since: Moment, reason_to_wait: str) -> bool:
        """Whether ``runs()`` will restart the schedules: this process has become the leader."""
        return since is not self._since and not reason_to_wait

    def restart(self, since: Moment, now: Moment, newest: Mapping[str, datetime]) -> None:
        """Restart the schedules of a new leader. It does not run what came due while another
        process led, but for the newest due time of a job that catches up and that nobody has run.
        ``newest`` holds the newest due time in the ledger for each job."""
        self._since = since
        for job in self.jobs:
            job.restart(since, now)
            if job.job.catch_up:
                self._look_back(job, newest.get(job.name, self._begun), since)
            self._agenda.put(job, job.next_due)

    def runs(self, now: Moment, reason_to_wait: str, limit: int | None) -> list[Run]:
        """The runs that begin now; no more than ``limit`` in the whole life.

        ``reason_to_wait`` says why none may begin.
        """
        if self._wall_clock.was_set(now):
            self._ask_schedules_again(now)
        ready = self._runs_ordered(now)
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
            self._agenda.put(job, job.next_due)
        return ready

    def _runs_ordered(self, now: Moment) -> list[Run]:
        """The runs that somebody has ordered. A job that runs is run again when it has ended."""
        ready: list[Run] = []
        for job in list(self._ordered):
            if run := job.ordered(now):
                del self._ordered[job]
                ready.append(run)
        self.begun += len(ready)
        return ready

    def _due(self, now: Moment) -> Iterator[tuple[ScheduledJob, list[Moment]]]:
        """The jobs that need a decision, with their due times that have passed."""
        while self._ended:
            job = self._ended.popleft()
            yield job, job.after_run(now)
        for job in self._agenda.pop(now):
            yield job, job.take(now, MAX_PASSED)

    def _ask_schedules_again(self, now: Moment) -> None:
        for job in self.jobs:
            job.times.ask_again(now)
            self._agenda.put(job, job.next_due)

    def _skip_older(
        self, job: ScheduledJob, passed: list[Moment], now: Moment, reason_to_wait: str
    ) -> None:
        """Skip all but the newest of the due times that passed together."""
        for due in passed:
            reason = job.skip_reason(due, now, reason_to_wait) or SkipReason.GRACE
            self._record.skipped(job.name, due, reason)

    def _skip(self, job: ScheduledJob, skip: Skip, now: Moment) -> None:
        if job.is_fixed:
            self._record.skipped(job.name, *skip)
        else:  # or it would never be due again
            job.times.go_on_at(now.later(self._look_again))

    def next_due(self) -> Moment:
        """When the next job is due; ``NEVER`` if none is."""
        return self._agenda.next_due()

    @property
    def has_work(self) -> bool:
        """Whether a run has ended that ``runs()`` has not processed yet."""
        return bool(self._ended)

    @property
    def is_at_rest(self) -> bool:
        """Whether no job runs or waits for a thread."""
        return all(job.is_idle for job in self.jobs)

    @property
    def is_over(self) -> bool:
        """Whether nothing will ever be due again."""
        is_idle = self.is_at_rest and not self._ended and not self._ordered
        return is_idle and self.next_due() == NEVER

    def running(self) -> list[Run]:
        """The runs whose work is in progress."""
        return [run for job in self.jobs if (run := job.running) is not None]

    def close(self) -> None:
        """Nothing will be asked any more."""

    def order(self, name: str) -> None:
        """Run a job now, or all of them (""). The schedules go on as if nothing had been. From any
        thread."""
        self._ordered.update(dict.fromkeys(job for job in self.jobs if name in ("", job.name)))
        self._nudge()

    def is_ordered(self, job: ScheduledJob) -> bool:
        """Whether a run of this job was ordered and has not begun."""
        return job in self._ordered

    def run_ended(self, job: ScheduledJob) -> None:
        """Note that a run has ended, which may make its job due. From a thread of the pool."""
        self._ended.append(job)
        self._nudge()
