"""The loop of a daemon with jobs: it waits until a job is due and passes its run to the pool.

The main thread decides what runs, and what is skipped and why. Threads of the pool do the work. The
main thread processes the end of a run if the next due time of the job depends on it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from daemonkit import conf, signals
from daemonkit.clock import NEVER
from daemonkit.connections.holding import close_idle
from daemonkit.connections.pool import Pool
from daemonkit.connections.private_session import PrivateSessions
from daemonkit.iteration import Iteration
from daemonkit.jobs.atomic import AtomicClaim, refuse_where_it_cannot_be_atomic
from daemonkit.jobs.claims import JobClaim, JobClaims
from daemonkit.jobs.dispatcher import Dispatcher
from daemonkit.jobs.job import Job
from daemonkit.jobs.ledger import DatabaseLedger, Ledger, NoLedger
from daemonkit.jobs.record import Record
from daemonkit.jobs.scheduled_job import ScheduledJob
from daemonkit.jobs.wall_clock import WallClock
from daemonkit.life import Life
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce

if TYPE_CHECKING:
    from daemonkit.jobs.added_run import Submission
    from daemonkit.jobs.inline import CallingThread


SERVING_INTERVAL = 0.02
"""Seconds between two checks for sync work of tasks on the event loop, while the main thread waits
for the last jobs."""


RETRY_INTERVAL = 1.0
"""Seconds after which a new leader asks the ledger again."""


def live(life: Life, scheduler: Scheduler) -> Iteration | None:
    """Run a life of a daemon with jobs. Returns the last iteration, if there was one."""
    scheduler.begin(life)
    with (
        life.watched(),
        life.announced(),
        contextlib.closing(scheduler.ledger),
        life.steered(),
        life.opened(scheduler.open),
        life.campaigning(),
    ):
        return scheduler.live()


class Scheduler:
    """The loop of a daemon with jobs.

    ``sessions`` are for the ledger. They are None if the caller has a transaction open: then jobs
    run in it, one after the other on the calling thread.
    """

    life: Life
    record: Record
    dispatcher: Dispatcher

    def __init__(self, name: str, settings: Settings, sessions: PrivateSessions | None) -> None:
        self.clock = settings.clock
        self.ledger: Ledger = NoLedger()
        if sessions is None:
            self._run_inline(name, settings)
        else:
            if settings.ledger:
                self.ledger = DatabaseLedger(name, sessions, settings.stop_timeout / 2)
            self.pool: Pool | CallingThread = Pool(settings.threads, name=name)
        self.claims: JobClaims | None = None
        self._atomic: list[AtomicClaim] = []
        self._sessions = sessions
        self._raised: BaseException | None = None
        self._is_open = False

    def _run_inline(self, name: str, settings: Settings) -> None:
        from daemonkit.jobs.inline import CallersLedger, CallingThread  # only in tests

        if settings.ledger:
            self.ledger = CallersLedger(name)
        self.pool = CallingThread(lambda: self.life.verdict.is_over)

    def begin(self, life: Life) -> None:
        """Prepare to run the jobs of this life."""
        wall_clock = WallClock(life.begun)
        self.life, self.record = life, Record(life, self.ledger, wall_clock)
        make: Callable[..., Dispatcher] = partial(
            Dispatcher, self.record, wall_clock, life.pace.since
        )
        if hasattr(life.daemon, "add_jobs"):
            from daemonkit.jobs.added_dispatcher import with_added_jobs  # it loads APScheduler

            make = with_added_jobs(self, wall_clock)
        self.dispatcher = make(look_again=life.pulse, nudge=life.nudge)
        self.dispatcher.jobs = [self._scheduled(job) for job in life.settings.jobs]
        if life.steering is not None:
            life.steering.jobs = self.dispatcher

    def _scheduled(self, job: Job) -> ScheduledJob:
        life = self.life
        claim: JobClaim | AtomicClaim | None = None
        if job.is_atomic and self._sessions:
            refuse_where_it_cannot_be_atomic(life.daemon.name, life.daemon.module, job.name)
            claim = AtomicClaim(life.daemon.name, job.name)
            self._atomic.append(claim)
        elif job.exclusive:
            claim = self.claim_of(job.name)
        work = getattr(life.daemon, job.name)
        return ScheduledJob(job, work, life, self.record, self, claim)

    def claim_of(self, name: str) -> JobClaim | None:
        """The claim of an exclusive job; None in a transaction of the caller."""
        if self._sessions is None:
            return None
        if self.claims is None:
            life = self.life
            assert life.settings.terms is not None
            self.claims = JobClaims(
                life.daemon.name,
                self._sessions.claims,
                life.settings.terms,
                self.clock,
                lambda: life.stop,
            )
        return self.claims.of(name)

    def open(self) -> None:
        """Find in the ledger which due times passed while the process was down. Called again if a
        later step of opening fails."""
        if self._is_open:
            return
        conf.keep_runs()  # raises if the settings are invalid
        conf.store_errors()
        life = self.life
        newest = self.ledger.open(needed=any(job.needs_ledger for job in life.settings.jobs))
        if self.claims is not None:
            self.claims.require_table()
        for claim in self._atomic:
            assert self._sessions is not None
            claim.create_row(self._sessions.claims)
        self._is_open = True
        self.dispatcher.start(self.clock.moment(), life.begun, {} if life.once else newest)

    def require_tables(self) -> None:
        """Raise ``ImproperlyConfigured`` without the tables that an exclusive job needs."""
        self.ledger.open(needed=True)
        if self.claims is not None:
            self.claims.require_table()

    # The loop

    def live(self) -> Iteration | None:
        life, jobs = self.life, self.dispatcher
        try:
            while life.goes_on(jobs.begun, self.clock.moment()):
                life.pulsed()
                life.coroutines.serve_tasks()
                self._run_what_is_due()
                self.clock.at_rest(self._rest)
                if jobs.is_over:
                    life.verdict.note_nothing_due()
                    break
                self._wait()
            life.await_replacement()
        finally:
            self._close()
        if self._raised is not None and not life.stop.forced:
            raise self._raised
        return life.last

    def _run_what_is_due(self) -> None:
        pace, now = self.life.pace, self.clock.moment()
        reason_to_wait = pace.reason_to_wait(now)  # before ``since``
        since, limit = pace.since, self.life.settings.max_ticks
        if self.dispatcher.restarts(since, reason_to_wait):
            if (newest := self._newest()) is None:
                return self.life.wait(RETRY_INTERVAL)
            self.dispatcher.restart(since, now, newest)
        # All at once: threads that wake up earlier would only compete with this one.
        if runs := self.dispatcher.runs(now, reason_to_wait, limit):
            self.pool.fulfil((run, run.execute) for run in runs)
        return None

    def _newest(self) -> dict[str, datetime] | None:
        """The newest due time of each job in the ledger, if one catches up. None if the database
        does not answer: then nothing may run yet, or a due time could be lost."""
        if not self.dispatcher.catches_up:
            return {}
        try:
            return self.ledger.newest()
        except Exception as error:
            self.ledger.complain(error)
            return None

    def _wait(self) -> None:
        """Wait until something is due, unless it already is."""
        life, now, due = self.life, self.clock.moment(), self.dispatcher.next_due()
        life.due = due
        seconds = due.monotonic - now.monotonic
        if seconds <= 0 or not life.goes_on(self.dispatcher.begun, now):
            return
        close_idle(seconds)
        if due != NEVER:
            announce(signals.daemon_waiting, life.daemon, due=due)
        if not self.dispatcher.has_work:
            life.wait(min(seconds, life.verdict.seconds_left(now)))

    def _rest(self) -> None:
        """Return when no job runs."""
        while not self.dispatcher.is_at_rest:
            self.life.coroutines.serve_tasks()
            time.sleep(0.0005)

    def _close(self) -> None:
        """Let running jobs finish. The watcher forces the end if they take too long."""
        life, limit = self.life, self.life.settings.max_ticks
        is_over = not limit or self.dispatcher.begun < limit  # at the limit queued runs still count
        while not self.pool.close(cancel=is_over or life.stop.asked, timeout=self._joining_time):
            life.pulsed()
            life.coroutines.serve_tasks()
        self.dispatcher.close()
        if self.claims is not None:
            self.claims.close()
        self.ledger.flush()

    @property
    def _joining_time(self) -> float:
        """Seconds to wait for the end of the jobs at one time."""
        return self.life.pulse if self.life.watched_life.event_loop is None else SERVING_INTERVAL

    # From other threads

    def run_ended(self, job: ScheduledJob) -> None:
        self.dispatcher.run_ended(job)

    def is_ordered(self, job: ScheduledJob) -> bool:
        return self.dispatcher.is_ordered(job)

    def end_process(self, job: ScheduledJob | Submission, error: BaseException) -> None:
        """End the process, because a run has raised ``error``. The life raises it when it ends."""
        self._raised = error
        self.life.ask_to_stop(f"{type(error).__name__} in job {job.name}")

    def before_forced_end(self) -> None:
        """Record running jobs as failed, because the process is forced to end and may not get to
        record them later. A run that still ends in time overwrites its row."""
        self.ledger.hurry()
        error, now = f"forced to end: {self.life.stop.forced}", self.clock.moment()
        for run in self.dispatcher.running():
            if run.started is not None:
                seconds = now.monotonic - run.started.monotonic
                iteration = run.iteration(run.started, seconds)
                run.job.record.ran(iteration, run.tries, failed=True, error=error)
