"""The loop of a daemon with jobs: it waits until a job is due and hands its run to the pool.

The main thread decides what is due, what is skipped and why; threads of the pool do the work. A
run that has ended comes back to the main thread if its end decides when the job is next due.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from daemonkit import conf, signals
from daemonkit.clock import NEVER
from daemonkit.connections.holding import close_idle
from daemonkit.connections.pool import Pool
from daemonkit.connections.private_session import PrivateSessions
from daemonkit.iteration import Iteration
from daemonkit.jobs.dispatcher import Dispatcher
from daemonkit.jobs.ledger import DatabaseLedger, Ledger, NoLedger
from daemonkit.jobs.record import Record
from daemonkit.jobs.scheduled_job import ScheduledJob
from daemonkit.jobs.wall_clock import WallClock
from daemonkit.life import Life
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce

if TYPE_CHECKING:
    from daemonkit.jobs.inline import CallingThread


SERVING_INTERVAL = 0.02
"""Seconds: how often the main thread, while it waits for the last jobs, looks for the sync work of
tasks on the event loop."""


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
        self._raised: BaseException | None = None
        self._is_open = False

    def _run_inline(self, name: str, settings: Settings) -> None:
        from daemonkit.jobs.inline import CallersLedger, CallingThread  # for tests alone

        if settings.ledger:
            self.ledger = CallersLedger(name)
        self.pool = CallingThread(lambda: self.life.verdict.is_over)

    def begin(self, life: Life) -> None:
        """Belong to this life, whose jobs it runs."""
        wall_clock = WallClock(life.begun)
        self.life, self.record = life, Record(life, self.ledger, wall_clock)
        self.dispatcher = Dispatcher(
            self.record, wall_clock, life.pace.since, look_again=life.pulse, nudge=life.nudge
        )
        self.dispatcher.jobs = [
            ScheduledJob(job, getattr(life.daemon, job.name), life, self.record, self)
            for job in life.settings.jobs
        ]

    def open(self) -> None:
        """Look in the ledger for due times that passed while the process was down. What opens after
        it may fail, and then this is called again."""
        if self._is_open:
            return
        conf.keep_runs()  # whether they make sense
        conf.store_errors()
        life = self.life
        newest = self.ledger.open(needed=any(job.needs_ledger for job in life.settings.jobs))
        self._is_open = True
        self.dispatcher.start(self.clock.moment(), life.begun, {} if life.once else newest)

    # The loop

    def live(self) -> Iteration | None:
        life, jobs = self.life, self.dispatcher
        try:
            while life.goes_on(jobs.begun, self.clock.moment()):
                life.pulsed()
                life.serve_tasks()
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
        limit = self.life.settings.max_ticks
        # All at once: a thread that wakes up would only be in the way before.
        if runs := self.dispatcher.runs(now, reason_to_wait, pace.since, limit):
            self.pool.fulfil((run, run.execute) for run in runs)

    def _wait(self) -> None:
        """Wait until something is due, unless it is so by now."""
        life, now, due = self.life, self.clock.moment(), self.dispatcher.next_due()
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
            self.life.serve_tasks()
            time.sleep(0.0005)

    def _close(self) -> None:
        """Let running jobs finish; the watcher insists if they take too long."""
        life, limit = self.life, self.life.settings.max_ticks
        is_over = not limit or self.dispatcher.begun < limit  # or what is queued belongs to it
        while not self.pool.close(cancel=is_over or life.stop.asked, timeout=self._joining_time):
            life.pulsed()
            life.serve_tasks()
        self.ledger.flush()

    @property
    def _joining_time(self) -> float:
        """Seconds for which the end of the jobs may be awaited at a stretch."""
        return self.life.pulse if self.life.watched_life.event_loop is None else SERVING_INTERVAL

    # From other threads

    def run_ended(self, job: ScheduledJob) -> None:
        self.dispatcher.run_ended(job)

    def end_process(self, job: ScheduledJob, error: BaseException) -> None:
        """A run has raised what ends the process, and the life raises it at its end."""
        self._raised = error
        self.life.ask_to_stop(f"{type(error).__name__} in job {job.name}")

    def last_words(self) -> None:
        """The process is being forced to end: note what runs as failed, for it may end with no more
        to be said. What ends by itself in time says so after it."""
        self.ledger.hurry()
        error, now = f"forced to end: {self.life.stop.forced}", self.clock.moment()
        for job in self.dispatcher.jobs:
            run = job.running
            if run is not None and run.started is not None:
                seconds = now.monotonic - run.started.monotonic
                self.record.ran(run.iteration(run.started, seconds), failed=True, error=error)
