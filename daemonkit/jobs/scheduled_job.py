"""One job of a running daemon: its due times and the state of its run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, Protocol

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.jobs.atomic import AtomicClaim
from daemonkit.jobs.claims import JobClaim
from daemonkit.jobs.due_times import DueTimes
from daemonkit.jobs.job import DAEMON_DEFAULT, TICK, Job
from daemonkit.jobs.record import Record, stored_text
from daemonkit.jobs.run import Run
from daemonkit.jobs.skip_reason import SkipReason
from daemonkit.life import Life
from daemonkit.schedules.backfill import Backfill
from daemonkit.schedules.backoff import next_due

ROUNDING = 0.001
"""Seconds by which a due time of the wall clock may differ from the end of a pause."""


class Phase(Enum):
    """The state of a job's run."""

    IDLE = "idle"
    QUEUED = "queued"
    RUNNING = "running"
    ENDING = "ending"
    """Its work is done, and its outcome is being announced. The next run waits for that."""


class Loop(Protocol):
    """The scheduler, as a job sees it."""

    def run_ended(self, job: ScheduledJob) -> None:
        """Note that a run has ended, which may make the job due."""

    def is_ordered(self, job: ScheduledJob) -> bool:
        """Whether another run of the job was ordered."""

    def end_process(self, job: ScheduledJob, error: BaseException) -> None:
        """End the process, because a run has raised ``error``."""


class Postponed(NamedTuple):
    """A due time that is tried again: after a failure, or because another process runs the job.

    ``tries`` are the errors of the failed tries.
    """

    due: Moment
    at: Moment
    tries: tuple[str, ...] = ()


class Skip(NamedTuple):
    """A due time that passes without a run, and why."""

    due: Moment
    reason: SkipReason


class ScheduledJob:
    """A job, its due times and its run.

    The main thread decides what runs. A thread of the pool reports the progress of the run.
    """

    def __init__(
        self,
        job: Job,
        work: Callable[[], Any],
        life: Life,
        record: Record,
        loop: Loop,
        claim: JobClaim | AtomicClaim | None = None,
    ) -> None:
        self.job, self.name = job, job.name
        self.schedule = job.schedule
        self.atomic = claim if isinstance(claim, AtomicClaim) else None
        self.claim = claim if isinstance(claim, JobClaim) else None
        self.runs_at_most_once = (
            bool(job.exclusive)
            or (job.catch_up and (life.leadership is not None or job.name == TICK))
            or isinstance(job.schedule, Backfill)
        )
        self.is_claimed = self.runs_at_most_once and self.atomic is None
        """Whether the row of a due time is inserted before its run."""
        self.is_fixed = job.schedule.is_fixed
        """Whether its due times do not depend on its runs."""
        self.life, self.record, self._loop = life, record, loop
        self.work = life.entitled(work)
        if claim is not None:
            inner = self.work
            self.work = lambda: life.coroutines.awaited(inner())
        if self.claim is not None:
            self.work = self.claim.entitled(self.work)
        daemons = life.settings.tick_timeout
        self.tick_timeout = daemons if job.tick_timeout == DAEMON_DEFAULT else job.tick_timeout
        self.times = DueTimes(job.schedule, life.pace.since)
        self.waits_in_thread = bool(life.settings.max_ticks)
        """Whether a run waits on its thread for a claim: it counts already."""
        self.runs = 0
        self.last: Iteration | None = None
        """The iteration of the last run, without its error; None if the run succeeded."""
        self._not_before = self._began = self._ended = float("-inf")
        self._lock = threading.Lock()
        self._phase = Phase.IDLE
        self._run: Run | None = None
        self._deferred: Moment | None = None
        self._undecided: Iteration | None = None
        self._postponed: Postponed | None = None
        self._again: Postponed | None = None

    # On the main thread: what is due, and what follows from it

    def decide(self, due: Moment, now: Moment, reason_to_wait: str) -> Run | Skip | None:
        """What follows from a due time that has passed: a run for the pool, a skip, or nothing
        yet."""
        with self._lock:
            if self._phase is Phase.ENDING:
                older, self._deferred = self._deferred, due
                return None if older is None else Skip(older, SkipReason.GRACE)
            again, self._again = self._again, None
            tries = again.tries if again is not None and again.due is due else ()
            if reason := self._skip_reason(due, now, reason_to_wait, is_retry=bool(tries)):
                self._release()
                return Skip(due, reason)
            if self._phase is Phase.QUEUED and self._run is not None:
                older, self._run.due = self._run.due, due
                return Skip(older, SkipReason.GRACE)
            self._phase, self._run = Phase.QUEUED, Run(self, due, tries)
            return self._run

    def take(self, now: Moment, limit: int) -> list[Moment]:
        """Take the due times that have passed, with one that was postponed until now."""
        passed = self.times.take(now, limit)
        again = self._postponed
        if again is not None and (passed or again.at.monotonic <= now.monotonic):
            self._postponed, self._again = None, again
            passed.insert(0, again.due)
        return passed

    @property
    def next_due(self) -> Moment:
        """When the main thread must look at it next."""
        again = self._postponed
        return self.times.next if again is None else min(again.at, self.times.next)

    def ordered(self, now: Moment) -> Run | None:
        """A run that somebody has ordered, whatever its schedule says; None while another one is
        not over."""
        with self._lock:
            if self._phase is not Phase.IDLE:
                return None
            self._phase, self._run = Phase.QUEUED, Run(self, now)
            return self._run

    def skip_reason(self, due: Moment, now: Moment, reason_to_wait: str) -> SkipReason | None:
        """Why a due time that has passed is skipped; None if it may run."""
        with self._lock:
            return self._skip_reason(due, now, reason_to_wait)

    def _skip_reason(
        self, due: Moment, now: Moment, reason_to_wait: str, *, is_retry: bool = False
    ) -> SkipReason | None:
        if self._phase is Phase.RUNNING or self._began <= due.monotonic < self._ended:
            return SkipReason.OVERLAP
        if due.monotonic < self._not_before - ROUNDING and not is_retry:
            return SkipReason.BACK_OFF
        if reason := self.record.reason_to_wait(self.name, now, reason_to_wait):
            return reason
        return SkipReason.GRACE if self.is_too_late(due, now) and not is_retry else None

    def is_too_late(self, due: Moment, now: Moment) -> bool:
        """Whether a due time is past its grace. Grace applies only to fixed schedules."""
        grace = self.job.grace
        return grace is not None and self.is_fixed and now.monotonic - due.monotonic > grace

    def after_run(self, now: Moment) -> list[Moment]:
        """Set the next due time, if it depends on the last run.

        Returns the due time that passed while that run was ending, if there is one.
        """
        with self._lock:
            deferred, self._deferred = self._deferred, None
            iteration, self._undecided = self._undecided, None
        if iteration is not None and self.life.once:
            self.times.go_on_at(self.schedule.due(iteration, self.times.since, now))
        elif iteration is not None:
            due = next_due(self.schedule, iteration, self.times.since, now)
            if not self.is_fixed:
                self.times.go_on_at(due)
            else:
                self._not_before = due.monotonic
                if iteration.problem is not None and not self.runs_at_most_once:
                    self.times.add(due)
        return [] if deferred is None else [deferred]

    @property
    def is_idle(self) -> bool:
        return self._phase is Phase.IDLE

    @property
    def running(self) -> Run | None:
        """The run whose work is in progress."""
        return self._run if self._phase is Phase.RUNNING else None

    # On a thread of the pool: the progress of the run

    def begin(self, run: Run, now: Moment) -> SkipReason | None:
        """Begin the run on a thread. Returns why its work may not begin after all; None if it
        may."""
        with self._lock:
            self._phase = Phase.RUNNING
        if self.life.stop.asked:
            return SkipReason.DOWN
        return SkipReason.GRACE if self.is_too_late(run.due, now) and not run.tries else None

    def postpone(self, run: Run, seconds: float) -> None:
        """Try this run again later: another process runs the job."""
        with self._lock:
            self._postponed = Postponed(run.due, self.life.clock.moment().later(seconds), run.tries)

    def work_ended(self, began: Moment, seconds: float) -> None:
        with self._lock:
            self._phase = Phase.ENDING
            self._began, self._ended = began.monotonic, began.monotonic + seconds

    def end(self, iteration: Iteration | None, run: Run) -> None:
        """The run has ended with ``iteration``; None if it never began. The iteration's result is
        what the schedule's ``judge()`` returned."""
        retry = None if iteration is None else self._retry(iteration, run)
        if self.claim is not None and retry is None:
            self.claim.give_back()
        with self._lock:
            self._postponed = retry or self._postponed
            if iteration is not None:
                self.life.last, self.last = iteration, None
                if iteration.error is not None:
                    self.last = iteration._replace(error=None)
                if retry is None and (iteration.error is not None or not self.is_fixed):
                    self._undecided = iteration
            # A successful run changes nothing for the loop, unless it was the last one or another
            # one was ordered.
            is_awaited = self._undecided is not None or self._deferred is not None
            is_awaited = is_awaited or self._postponed is not None
            if is_awaited or self.is_over or self._loop.is_ordered(self):
                self._loop.run_ended(self)  # before it is idle, or the loop would miss it
            self._phase, self._run = Phase.IDLE, None

    def _retry(self, iteration: Iteration, run: Run) -> Postponed | None:
        """When a failed run is tried again: after its pause, if that is before the next due
        time."""
        error, tries, life = iteration.error, run.tries, self.life
        if error is None or life.once or life.stop.asked or len(tries) >= self.job.retries:
            return None
        at = iteration.ended.later(iteration.pause)
        if isinstance(error, self.job.dont_retry) or at.monotonic >= self.times.next.monotonic:
            return None
        return Postponed(iteration.due, at, (*tries, stored_text(error)))

    def restart(self, since: Moment, now: Moment) -> None:
        """Begin the schedule again, without what was postponed."""
        self._postponed = None
        self._release()
        self.times.restart(since, now)

    def _release(self) -> None:
        """Give the claim back, from its own thread: no run uses it."""
        if self.claim is not None and self._phase is Phase.IDLE:
            self.claim.release()

    def end_process(self, error: BaseException) -> None:
        self._loop.end_process(self, error)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is due."""
        return self.next_due == NEVER
