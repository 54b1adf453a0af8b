"""The loop of a daemon with jobs: it waits until a job is due and hands its run to the pool.

The main thread decides what is due, what is skipped and why; threads of the pool do the work. A
run that has ended comes back to the main thread if its end decides when the job is next due.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from daemonkit import conf, signals
from daemonkit.clock import NEVER, NOTHING_DUE, Moment
from daemonkit.connections.pool import Pool
from daemonkit.connections.private_session import PrivateSessions
from daemonkit.connections.units import close_idle
from daemonkit.iteration import Iteration
from daemonkit.jobs.agenda import Agenda
from daemonkit.jobs.ledger import DatabaseLedger, Ledger, NoLedger
from daemonkit.jobs.record import Record
from daemonkit.jobs.run import Run
from daemonkit.jobs.scheduled_job import ScheduledJob, Skip
from daemonkit.jobs.skip_reason import SkipReason
from daemonkit.jobs.wall_clock import WallClock
from daemonkit.life import Life
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce

if TYPE_CHECKING:
    from daemonkit.jobs.inline import CallingThread

MAX_PASSED = 10
"""Of the due times that have passed together, how many are announced: the newest. More would push
what ran before out of the ledger."""


def live(life: Life, scheduler: Scheduler) -> Iteration | None:
    """A life of a daemon with jobs. The last iteration, if there was one."""
    scheduler.begin(life)
    with (
        life.watched(),
        life.announced(),
        contextlib.closing(scheduler.ledger),
        life.opened(scheduler.open),
        life.campaigning(),
    ):
        return scheduler.live()


class Scheduler:
    """The loop of a daemon with jobs.

    ``sessions`` are for the ledger. Without them the caller has a transaction open: then jobs run
    in it, one after the other on the calling thread.
    """

    life: Life
    record: Record
    wall_clock: WallClock

    def __init__(self, name: str, settings: Settings, sessions: PrivateSessions | None) -> None:
        self.clock = settings.clock
        self.ledger: Ledger = NoLedger()
        if sessions is None:
            self._run_inline(name, settings)
        else:
            if settings.ledger:
                self.ledger = DatabaseLedger(name, sessions, settings.stop_timeout / 2)
            self.pool: Pool | CallingThread = Pool(settings.threads, name=name)
        self.agenda = Agenda[ScheduledJob]()
        self.jobs: list[ScheduledJob] = []
        self.begun = 0  # runs
        self._ready: list[Run] = []
        self._ended: deque[ScheduledJob] = deque()
        self._raised: BaseException | None = None
        self._is_open = False

    def _run_inline(self, name: str, settings: Settings) -> None:
        from daemonkit.jobs.inline import CallersLedger, CallingThread  # for tests alone

        if settings.ledger:
            self.ledger = CallersLedger(name)
        self.pool = CallingThread(lambda: self.life.verdict.is_over)

    def begin(self, life: Life) -> None:
        """Belong to this life, whose jobs it runs."""
        self.life, self.wall_clock = life, WallClock(life.begun)
        self.record = Record(life, self.ledger, self.wall_clock)
        self.jobs = [
            ScheduledJob(job, getattr(life.daemon, job.name), life, self.record, self)
            for job in life.settings.jobs
        ]
        self._since = life.pace.since

    # Before the first run

    def open(self) -> None:
        """Look in the ledger for due times that passed while the process was down. What opens after
        it may fail, and then this is called again."""
        if self._is_open:
            return
        conf.keep_runs()  # whether they make sense
        conf.store_errors()
        newest = self.ledger.open(needed=any(job.job.needs_ledger for job in self.jobs))
        self._is_open, now = True, self.clock.moment()
        for job in self.jobs:
            job.times.start(now)
            if (last := newest.get(job.name)) and not self.life.once:
                begun = self.life.begun
                self._look_back(job, begun.at_wall(last.timestamp()), begun)
            self.agenda.put(job, job.next_due)

    def _look_back(self, job: ScheduledJob, last: Moment, begun: Moment) -> None:
        """Skip what passed before the process began, or catch up on the last of it."""
        if job.job.schedule.is_interval or not job.is_fixed:
            return  # its due times begin with the process
        passed = job.times.between(last, begun, MAX_PASSED)
        if passed and job.job.catch_up and not job.is_too_late(passed[-1], begun):
            job.times.next = passed.pop()
        for due in passed:
            self.record.skipped(job.name, due, SkipReason.DOWN)

    # The loop

    def live(self) -> Iteration | None:
        life = self.life
        try:
            while life.goes_on(self.begun, self.clock.moment()):
                life.pulsed()
                self._run_what_is_due(self.clock.moment())
                self.clock.at_rest(self._rest)
                now, due = self.clock.moment(), self.agenda.next_due()
                if due == NEVER and self._is_idle():
                    life.verdict.outcome = NOTHING_DUE
                    break
                if due.monotonic > now.monotonic and life.goes_on(self.begun, now):
                    self._wait(due, now)
            life.await_replacement()
        finally:
            self._close()
        if self._raised is not None and not life.stop.forced:
            raise self._raised
        return life.last

    def _wait(self, due: Moment, now: Moment) -> None:
        seconds = due.monotonic - now.monotonic
        close_idle(seconds)
        if due != NEVER:
            announce(signals.daemon_waiting, self.life.daemon, due=due)
        if not self._ended:
            self.life.wait(min(seconds, self.life.verdict.seconds_left(now)))

    def _rest(self) -> None:
        """Return when no job runs."""
        while not all(job.is_idle for job in self.jobs):
            time.sleep(0.0005)

    def _is_idle(self) -> bool:
        return all(job.is_idle for job in self.jobs) and not self._ended

    def _close(self) -> None:
        """Let running jobs finish; the watcher insists if they take too long."""
        life, limit = self.life, self.life.settings.max_ticks
        is_over = not limit or self.begun < limit  # or what is queued belongs to it
        while not self.pool.close(cancel=is_over or life.stop.asked, timeout=life.serving_interval):
            life.pulsed()
            life.serve_tasks()
        self.ledger.flush()

    # What is due

    def _run_what_is_due(self, now: Moment) -> None:
        # The reason first: when it ends, the schedules may count anew.
        reason_to_wait = self.life.pace.reason_to_wait(now)
        self._ask_schedules_again(now, reason_to_wait)
        while self._ended:
            job = self._ended.popleft()
            self._decide(job, job.after_run(now), now, reason_to_wait)
        limit = self.life.settings.max_ticks
        for job in self.agenda.pop(now):
            if limit and self.begun >= limit:
                break
            self._decide(job, job.take(now, MAX_PASSED), now, reason_to_wait)
        # All at once: a thread that wakes up would only be in the way before.
        ready, self._ready = self._ready, []
        if ready:
            self.pool.fulfil((run, run.execute) for run in ready)

    def _ask_schedules_again(self, now: Moment, reason_to_wait: str) -> None:
        """Ask them again if the wall clock was set, or if this process has come to lead.

        A new leader does not run what came due while another process led.
        """
        was_set, since = self.wall_clock.was_set(now), self.life.pace.since
        restarts = since is not self._since and not reason_to_wait
        if restarts:
            self._since = since
        elif not was_set:
            return
        for job in self.jobs:
            job.restart(since, now) if restarts else job.times.ask_again(now)
            self.agenda.put(job, job.next_due)

    def _decide(
        self, job: ScheduledJob, passed: list[Moment], now: Moment, reason_to_wait: str
    ) -> None:
        """Run the newest of the due times that have come, or skip it; skip those before it."""
        if len(passed) > 1:
            for due in passed[:-1]:
                reason = job.skip_reason(due, now, reason_to_wait) or SkipReason.GRACE
                self.record.skipped(job.name, due, reason)
        if passed:
            outcome = job.decide(passed[-1], now, reason_to_wait)
            if isinstance(outcome, Run):
                self._ready.append(outcome)
                self.begun += 1
            elif outcome is not None:
                self._skip(job, outcome, now)
        self.agenda.put(job, job.next_due)

    def _skip(self, job: ScheduledJob, skip: Skip, now: Moment) -> None:
        if job.is_fixed:
            self.record.skipped(job.name, *skip)
        else:  # nothing else would make it due again
            job.times.next = now.later(self.life.pulse)

    # From other threads

    def run_ended(self, job: ScheduledJob) -> None:
        """The end of a run may make its job due."""
        self._ended.append(job)
        self.life.nudge()

    def end_process(self, job: ScheduledJob, error: BaseException) -> None:
        """A run has raised what ends the process, and the life raises it at its end."""
        self._raised = error
        self.life.ask_to_stop(f"{type(error).__name__} in job {job.name}")

    def last_words(self) -> None:
        """The process is being forced to end: note what runs as failed, for it may end with no more
        to be said. What ends by itself in time says so after it."""
        self.ledger.hurry()
        error, now = f"forced to end: {self.life.stop.forced}", self.clock.moment()
        for job in self.jobs:
            run = job.running
            if run is not None and run.started is not None:
                seconds = now.monotonic - run.started.monotonic
                self.record.ran(run.iteration(run.started, seconds), failed=True, error=error)
