"""Runs of a job that was added through APScheduler's API."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.jobs.atomic import AtomicClaim
from daemonkit.jobs.claims import JobClaim
from daemonkit.jobs.record import Record
from daemonkit.jobs.run import Run
from daemonkit.jobs.skip_reason import SkipReason
from daemonkit.life import Life
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.triggers import Trigger


class AddedTimes(Trigger):
    """The due times of an added job. It keeps the result of a run for EVENT_JOB_EXECUTED."""

    def judge(self, result: Any) -> Any:
        return result


class AddedJob:
    """What is known of the runs of an added job, for as long as it has a due time or a run."""

    def __init__(self, name: str, record: Record, *, is_exclusive: bool) -> None:
        self.name, self.record, self.is_exclusive = name, record, is_exclusive
        self.instances = 0
        """How many of its submissions are not over. Changed under the scheduler's lock."""
        self.numbers = itertools.count()
        """Counts its runs. Taking one needs no lock."""
        self.last: Iteration | None = None
        """The iteration of the last run, without its error; None if the run succeeded."""
        self.not_before = float("-inf")
        self._times: AddedTimes | None = None

    def times_of(self, trigger: Any) -> AddedTimes:
        """Its due times. They change if it is rescheduled."""
        if self._times is None or self._times.trigger is not trigger:
            self._times = AddedTimes(trigger)
        return self._times


class Home(Protocol):
    """The scheduler, as a submission sees it."""

    life: Life

    def claim_of(self, name: str) -> JobClaim | None:
        """The claim of an exclusive job; None in a transaction of the caller."""

    def submission_ended(self, submission: Submission) -> None:
        """Note that all runs of a submission are over."""

    def go_on(self, run: Run) -> None:
        """Give the next run of a submission to the pool."""

    def end_process(self, job: Any, error: BaseException) -> None:
        """End the process, because a run has raised ``error``."""


class Submission:
    """The runs of an added job that were due together. They follow each other; there are several
    only with ``coalesce=False``. To a ``Run`` it is the job."""

    def __init__(self, home: Home, job: Any, added: AddedJob, dues: Sequence[Moment]) -> None:
        self._home, self.life, self.added = home, home.life, added
        self.id, self.name, self.trigger = job.id, added.name, job.trigger
        self.job, self.grace = job, job.misfire_grace_time
        self.record, self.is_claimed = added.record, added.is_exclusive
        self.claim = home.claim_of(added.name) if added.is_exclusive else None
        self.atomic: AtomicClaim | None = None
        self.waits_in_thread = True
        self.schedule: Schedule = added.times_of(job.trigger)
        self.work: Callable[[], Any] = self.life.entitled(
            partial(job.func, *job.args, **job.kwargs)
        )
        if self.claim is not None:
            inner = self.work
            self.work = self.claim.entitled(lambda: self.life.coroutines.awaited(inner()))
        self.tick_timeout = self.life.settings.tick_timeout
        self.runs = 0
        self.last = added.last
        self.outcomes: list[tuple[Moment, Iteration | None, SkipReason | None]] = []
        """What became of each due time, in turn."""
        self.running: Run | None = None
        """The run whose work is in progress."""
        self._dues = deque(dues)
        self._reason: SkipReason | None = None

    @property
    def has_failed(self) -> bool:
        """Whether one of its runs so far has failed."""
        return any(each is not None and each.error is not None for _, each, _ in self.outcomes)

    def next_run(self) -> Run:
        return Run(self, self._dues[0])

    # On a thread of the pool: the progress of a run

    def begin(self, run: Run, now: Moment) -> SkipReason | None:
        late = now.monotonic - run.due.monotonic
        if self.life.stop.asked:
            self._reason = SkipReason.DOWN
        elif self.grace is not None and late > self.grace:
            self._reason = SkipReason.GRACE
        else:
            self.last = self.added.last
            self.runs = next(self.added.numbers)
            self.running = run
        return self._reason

    def work_ended(self, began: Moment, seconds: float) -> None:
        self.running = None

    def postpone(self, run: Run, seconds: float) -> None:
        """Never called: its thread waits for the claim."""

    def end(self, iteration: Iteration | None, run: Run) -> None:
        self.running = None
        if self.claim is not None:
            self.claim.give_back()
        if iteration is not None:
            failed = iteration.error is not None
            self.added.last = iteration._replace(error=None, result=None) if failed else None
            self.life.last = iteration._replace(result=None)
        reason, self._reason = self._reason, None
        self.outcomes.append((self._dues.popleft(), iteration, reason))
        if self._dues:
            self._home.go_on(self.next_run())
        else:
            self._home.submission_ended(self)

    def end_process(self, error: BaseException) -> None:
        self._home.end_process(self, error)
