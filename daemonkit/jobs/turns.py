"""The turns of one job: when it is due, why it may not run, and where a run stands."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from asgiref.sync import async_to_sync, iscoroutinefunction

from daemonkit.clock import NEVER, Moment
from daemonkit.iteration import Iteration
from daemonkit.jobs.job import DAEMONS, Job
from daemonkit.life import Life
from daemonkit.listeners.log import logger
from daemonkit.process.stopping import Tick


class Runs(Protocol):
    """The scheduler, as a job sees it."""

    life: Life

    def run(self, turns: Turns) -> Any: ...
    def ended(self, turns: Turns, result: Any, error: BaseException | None) -> None: ...
    def skip(self, turns: Turns, due: Moment, reason: str) -> None: ...


class Turns:
    """The due times of one job, one after the other, and where it stands: idle, queued, running.

    The main thread moves it on; a thread of the pool says when a run begins and ends. To
    APScheduler it is a trigger, and to the pool the promise of a run.
    """

    def __init__(self, job: Job, work: Callable[[], Any], scheduler: Runs) -> None:
        self.job, self.life, self.scheduler = job, scheduler.life, scheduler
        life = scheduler.life
        self.work = life.entitled(async_to_sync(work) if iscoroutinefunction(work) else work)
        daemons = life.settings.tick_timeout
        self.tick_timeout = daemons if job.tick_timeout == DAEMONS else job.tick_timeout
        self.due = NEVER
        self.previous: Moment | None = None
        self.retry: Moment | None = None
        self.queued: Moment | None = None
        self.now_due = NEVER
        self.running = False
        self.timing: Tick | None = None
        self.started: Moment | None = None
        self.seconds = 0.0
        self.number = 0
        self.last: Iteration | None = None
        self.began = self.ended = self.not_before = float("-inf")
        self.lock = threading.Lock()

    def get_next_fire_time(
        self, previous_fire_time: datetime | None, now: datetime
    ) -> datetime | None:
        """APScheduler's question, from which nothing depends here but its listings."""
        return None if self.due == NEVER else self.due.utc

    def first(self, now: Moment) -> Moment:
        return self.job.schedule.due(None, self.life.pace.since, now)

    def after(self, due: Moment, now: Moment) -> Moment:
        """The due time after this one, however long its run takes."""
        last = Iteration(1, due, due, 0.0)
        return self.job.schedule.due(last, self.life.pace.since, now)

    def missed(self, now: Moment, most: int) -> list[Moment]:
        """The due times up to now, the newest of them, and move on to the next."""
        due = self.due
        following = self.after(due, now)
        if following.monotonic > now.monotonic:  # as nearly always
            self.due, self.previous = following, due
            return [due]
        passed: deque[Moment] = deque(maxlen=most)
        if self.is_interval:
            due = self._leap(due, now, most)
        while due.monotonic <= now.monotonic:
            passed.append(due)
            due = self.after(due, now)
        self.due, self.previous = due, passed[-1]
        return list(passed)

    def anew(self, now: Moment) -> None:
        """Ask the schedule again, because the wall clock was set."""
        if self.job.schedule.is_fixed and self.due != NEVER:
            last = self.previous and Iteration(1, self.previous, self.previous, 0.0)
            self.due = self.job.schedule.due(last, self.life.pace.since, now)

    def begin_anew(self, now: Moment) -> None:
        """Count from now on, as at the begin of the life: this process has come to lead."""
        self.previous = self.retry = None
        self.due = self.first(now)

    def between(self, last: Moment, now: Moment, most: int) -> list[Moment]:
        """The newest due times after ``last`` and up to now.

        There may be a year of them, one a minute, so it begins to look an hour ago.
        """
        found: deque[Moment] = deque(maxlen=most)
        for hours in (1, 24, 24 * 31, 24 * 366, None):
            start = last if hours is None else max(last, now.later(-3600.0 * hours))
            found.clear()
            due = self.after(start, now)
            while due.monotonic <= now.monotonic:
                found.append(due)
                due = self.after(due, now)
            if len(found) == most or start == last:
                break
        return list(found)

    def _leap(self, due: Moment, now: Moment, most: int) -> Moment:
        """Past what nobody would want to read of, after hours in which the process was frozen."""
        seconds = self.job.schedule.seconds  # type: ignore[attr-defined]
        turns = int((now.monotonic - due.monotonic) / seconds) - most
        return now.at_monotonic(due.monotonic + turns * seconds) if turns > 0 else due

    def why_not(self, due: Moment, now: Moment) -> str:
        """Why there is no run for a due time that has come; "" if there is to be one."""
        if self.running or self.began <= due.monotonic < self.ended:
            return "overlap"
        if due.monotonic < self.not_before - 0.001:  # what is told by the wall clock is rounded
            return "back-off"
        return self.life.pace.reason_to_wait(now) or self.too_late(due, now)

    def too_late(self, due: Moment, now: Moment) -> str:
        late = now.monotonic - due.monotonic
        return "grace" if self.job.grace is not None and late > self.job.grace else ""

    @property
    def is_interval(self) -> bool:
        """Whether its times are those of the monotonic clock, from the begin of the process."""
        return self.job.schedule.is_interval

    @property
    def is_idle(self) -> bool:
        return self.queued is None and not self.running

    # A promise of the pool's

    def run(self) -> Any:
        return self.scheduler.run(self)

    def set_running_or_notify_cancel(self) -> bool:
        return True

    def set_result(self, result: Any) -> None:
        self._ended(result, None)

    def set_exception(self, exception: BaseException) -> None:
        self._ended(None, exception)

    def _ended(self, result: Any, error: BaseException | None) -> None:
        try:
            self.scheduler.ended(self, result, error)
        except Exception:
            logger.exception("%s %s: its end was not noted", self.life.daemon.name, self.job.name)
        finally:
            self.running = False

    def cancel(self) -> bool:
        """No thread has come to it, and none will."""
        with self.lock:
            due, self.queued = self.queued, None
        if due is not None:
            self.scheduler.skip(self, due, "down")
        return True

    def enqueue(self, due: Moment) -> tuple[Moment | None, bool]:
        """To be run as soon as there is a thread: the earlier due time whose place it takes, if
        that still waits for one; and whether it may not, because a run has begun just now."""
        with self.lock:
            replaced = self.queued
            if not self.running:
                self.queued = due
            return replaced, self.running

    def begin(self) -> Moment:
        """A thread has come to it: the due time that it is to run."""
        with self.lock:
            due, self.running, self.queued = self.queued, True, None
        assert due is not None
        return due
