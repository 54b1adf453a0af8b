"""The APScheduler behind ``@job``: several jobs of one daemon, on one pool of threads.

It stands on APScheduler's own extension points (a scheduler, a job store, an executor, a trigger),
each replaced for a reason. The scheduler's loop is the daemon's: it runs on the main thread, gives
the pulse, and leaves its wait as soon as it is told to stop. The job store is a heap on the
monotonic clock, so that nobody who sets the wall clock can silence a job. The executor is the pool
whose every job is a unit of work. The trigger asks our schedules, and skips what is too late.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job as APJob
from apscheduler.jobstores.base import BaseJobStore, ConflictingIdError, JobLookupError
from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler
from apscheduler.triggers.base import BaseTrigger

from daemonkit import conf, signals
from daemonkit.clock import NEVER, NOTHING_DUE, Moment
from daemonkit.connections.pool import Pool
from daemonkit.connections.units import close_idle
from daemonkit.errors import one_line
from daemonkit.iteration import Iteration
from daemonkit.jobs.ledger import Entry, Ledger
from daemonkit.jobs.turns import Turns
from daemonkit.life import Life
from daemonkit.models import Run
from daemonkit.schedules.backoff import next_due
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce

MOST_PASSED = 10
"""Due times, of those that passed together, that are told one by one: the newest. More of them
would push out of the ledger what ran before."""

SET = 0.05
"""Seconds by which the wall clock must move against the monotonic one to count as set."""


def live(life: Life, scheduler: Scheduler) -> Iteration | None:
    """A life of a daemon with jobs. The last iteration, if there was one."""
    scheduler.begin(life)
    with life.watched(), life.announced(), life.opened(scheduler.open), life.campaigning():
        return scheduler.live()


BaseTrigger.register(Turns)


class Heap(BaseJobStore):  # type: ignore[misc]
    """Jobs in memory, by the monotonic clock. APScheduler's own keeps a list sorted by the wall
    clock, and moves half of it about for each run."""

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, APJob] = {}
        self._heap: list[tuple[float, int, Moment, APJob]] = []
        self._order = itertools.count()

    def push(self, job: APJob, due: Moment) -> None:
        if due != NEVER:
            heapq.heappush(self._heap, (due.monotonic, next(self._order), due, job))

    def pop(self, now: Moment) -> list[tuple[APJob, Moment]]:
        """What is due by now, in its order."""
        found = []
        while self._heap and self._heap[0][0] <= now.monotonic:
            _, _, due, job = heapq.heappop(self._heap)
            if due is job.trigger.due or due is job.trigger.retry:  # or it was put off since
                found.append((job, due))
        return found

    def seconds(self, now: Moment) -> float:
        """Until the next one is due; infinity if none is."""
        while self._heap:
            monotonic, _, due, job = self._heap[0]
            if due is job.trigger.due or due is job.trigger.retry:
                return monotonic - now.monotonic
            heapq.heappop(self._heap)
        return float("inf")

    def next(self) -> Moment:
        return self._heap[0][2] if self._heap else NEVER

    # What APScheduler asks of a job store

    def add_job(self, job: APJob) -> None:
        if job.id in self._jobs:
            raise ConflictingIdError(job.id)
        self._jobs[job.id] = job
        self.push(job, job.trigger.due)

    def update_job(self, job: APJob) -> None:
        self._jobs[job.id] = job
        self.push(job, job.trigger.due)

    def remove_job(self, job_id: str) -> None:
        if job_id not in self._jobs:
            raise JobLookupError(job_id)
        job = self._jobs.pop(job_id)
        job.trigger.due, job.trigger.retry = NEVER, None

    def remove_all_jobs(self) -> None:
        self._jobs.clear()
        self._heap.clear()

    def lookup_job(self, job_id: str) -> APJob | None:
        return self._jobs.get(job_id)

    def get_all_jobs(self) -> list[APJob]:
        return list(self._jobs.values())

    def get_due_jobs(self, now: datetime) -> list[APJob]:
        due = (job for job in self._jobs.values() if job.trigger.due != NEVER)
        return [job for job in due if job.trigger.due.utc <= now]

    def get_next_run_time(self) -> datetime | None:
        return None if self.next() == NEVER else self.next().utc


class Executor(BaseExecutor):  # type: ignore[misc]
    """Runs jobs on the pool. APScheduler's own swallows SystemExit, and knows no unit of work."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__()
        self.pool = Pool(threads, name=name)
        self._ready: list[tuple[Turns, Callable[[], Any]]] = []

    def submit_job(self, job: APJob, run_times: list[Moment]) -> None:
        """Note that it is to run; ``flush`` hands it over. Not APScheduler's own, which counts
        instances under a lock that threads whose run has ended would wait for, each of them for
        as long as the main thread may keep the interpreter."""
        self._ready.append((job.trigger, job.trigger.run))

    def flush(self) -> None:
        """Hand all over at once: a thread that wakes up would only be in the way before."""
        if self._ready:
            ready, self._ready = self._ready, []
            self.pool.fulfil(ready)

    def _do_submit_job(self, job: APJob, run_times: list[Moment]) -> None:
        raise NotImplementedError


class Scheduler(BaseScheduler):  # type: ignore[misc]
    """The loop of a daemon with jobs."""

    life: Life
    _since: Moment
    _offset: float

    def __init__(self, name: str, settings: Settings) -> None:
        self.clock = settings.clock
        self.heap = Heap()
        self.pool = Executor(settings.threads, name)
        # The scheduler's zone is for listings; to ask the machine for its own takes a while.
        super().__init__({}, timezone="UTC", jobstores={"default": self.heap},
                         executors={"default": self.pool})  # fmt: skip
        self.turns: list[Turns] = []
        self.ledger = Ledger(name, off=not settings.ledger)
        self.begun = 0  # runs
        self.last: Iteration | None = None
        self.skipped: Counter[tuple[str, str]] = Counter()
        self._came_back: deque[Turns] = deque()
        self._raised: BaseException | None = None
        self._set_back: list[float] = []
        self._has_looked = False

    def begin(self, life: Life) -> None:
        """Belong to this life, whose jobs it runs."""
        self.life = life
        self.turns = [
            Turns(job, getattr(life.daemon, job.name), self) for job in life.settings.jobs
        ]
        self._since = life.pace.since
        self._offset = life.begun.wall - life.begun.monotonic

    # Before the first run

    def open(self) -> None:
        """Look what the ledger says of the due times that passed while the process was down. What
        opens after it may fail, and then it is called again."""
        if self._has_looked:
            return
        conf.keep_runs()  # whether it makes sense
        newest = self.ledger.open(needed=any(turns.job.needs_ledger for turns in self.turns))
        self._has_looked, now = True, self.clock.moment()
        for turns in self.turns:
            turns.due = turns.first(now)
            if (last := newest.get(turns.job.name)) and not self.life.settings.once:
                begun = self.life.begun
                self._look_back(turns, begun.at_wall(last.timestamp()), begun)

    def _look_back(self, turns: Turns, last: Moment, now: Moment) -> None:
        """Say what passed while the process was down, up to its begin, and catch up on the last of
        it."""
        if turns.is_interval or not turns.job.schedule.is_fixed:
            return  # its times begin with the process
        passed = turns.between(last, now, MOST_PASSED)
        if passed and turns.job.catch_up and not turns.too_late(passed[-1], now):
            turns.due = passed.pop()
        for due in passed:
            self.skip(turns, due, "down")

    # The loop

    def live(self) -> Iteration | None:
        life = self.life
        for turns in self.turns:
            self.add_job(turns.run, turns, id=turns.job.name, name=turns.job.name)
        self.start()
        try:
            while life.goes_on(self.begun, self.clock.moment()):
                life.pulsed()
                self._process_jobs()
                self.clock.at_rest(self._rest)
                now = self.clock.moment()
                seconds = self.heap.seconds(now)
                if seconds == float("inf") and self._is_idle() and not self._came_back:
                    life.verdict.outcome = NOTHING_DUE
                    break
                if seconds > 0 and not self._came_back and life.goes_on(self.begun, now):
                    self._wait(min(seconds, life.verdict.seconds_left(now)))
            life.await_replacement()
        finally:
            self.shutdown()
        if self._raised is not None and not life.stop.forced:
            raise self._raised
        return self.last

    def _wait(self, seconds: float) -> None:
        close_idle(seconds)
        if (due := self.heap.next()) != NEVER:
            announce(signals.daemon_waiting, self.life.daemon, due=due)
        self.life.wait(seconds)

    def _rest(self) -> None:
        """Return when no job runs."""
        while not self._is_idle():
            time.sleep(0.0005)

    def _is_idle(self) -> bool:
        return all(turns.is_idle for turns in self.turns)

    def wakeup(self) -> None:
        self.life.nudge()

    def _process_jobs(self) -> None:
        """Submit what is due."""
        now = self.clock.moment()
        self._mind_the_wall_clock(now)
        self._mind_the_leader(now)
        while self._came_back:
            turns = self._came_back.popleft()
            if job := self.heap.lookup_job(turns.job.name):
                self.heap.push(job, turns.retry or turns.due)
        most = self.life.settings.max_ticks
        for job, due in self.heap.pop(now):
            if most and self.begun >= most:
                break
            self._come_due(job, due, now)
        self.pool.flush()

    def _come_due(self, job: APJob, due: Moment, now: Moment) -> None:
        turns: Turns = job.trigger
        newest = due
        if due is turns.retry:
            turns.retry = None
        elif turns.job.schedule.is_fixed:
            *passed, newest = turns.missed(now, MOST_PASSED)
            self.heap.push(job, turns.due)
            for each in passed:
                self.skip(turns, each, turns.why_not(each, now) or "grace")
        else:
            turns.due = now.later(self.life.pulse) if self.life.pace.reason_to_wait(now) else NEVER
            self.heap.push(job, turns.due)
        if reason := turns.why_not(newest, now):
            if turns.job.schedule.is_fixed:
                self.skip(turns, newest, reason)
        else:
            self._enqueue(job, newest)

    def _enqueue(self, job: APJob, due: Moment) -> None:
        """If no thread has come to the due time before it yet, the later one counts."""
        replaced, runs = job.trigger.enqueue(due)
        if runs:
            self.skip(job.trigger, due, "overlap")
        elif replaced is not None:
            self.skip(job.trigger, replaced, "grace")
        else:
            self.pool.submit_job(job, [due])
            self.begun += 1

    def _mind_the_wall_clock(self, now: Moment) -> None:
        """When somebody has set it, ask all schedules anew."""
        offset = now.wall - now.monotonic
        if abs(offset - self._offset) < SET:
            return
        if offset < self._offset - 1:
            self._set_back.append(now.monotonic + self._offset)  # what it showed before
        self._offset = offset
        for job in self.heap.get_all_jobs():
            job.trigger.anew(now)
            self.heap.push(job, job.trigger.due)

    def _mind_the_leader(self, now: Moment) -> None:
        """When this process has come to lead, have all schedules begin anew."""
        if self._since is not (since := self.life.pace.since):
            self._since = since
            for job in self.heap.get_all_jobs():
                job.trigger.begin_anew(now)
                self.heap.push(job, job.trigger.due)

    def shutdown(self, wait: bool = True) -> None:
        """Let running jobs finish; the watcher insists if they take too long."""
        life, most = self.life, self.life.settings.max_ticks
        is_over = not most or self.begun < most  # or what is queued belongs to it
        while not self.pool.pool.close(cancel=is_over or life.stop.asked, timeout=life.pulse):
            life.pulsed()
        if self.state != STATE_STOPPED:
            super().shutdown(wait=False)
        self.ledger.close()

    def last_words(self) -> None:
        """The process is being forced to end: note what runs as failed, for it may end with no more
        to be said. From the watcher's side. What ends by itself in time says so after it."""
        self.ledger.hurry()
        for turns in self.turns:
            with turns.lock:
                if (started := turns.started) is not None:
                    seconds = self.clock.moment().monotonic - started.monotonic
                    words = f"forced to end: {self.life.stop.forced}"
                    iteration = Iteration(turns.number, turns.now_due, started, seconds)
                    self._note(turns, iteration, words)

    # On a thread of the pool

    def run(self, turns: Turns) -> Any:
        """A run, within its unit of work. What is said about its end is said in ``ended``."""
        due, now = turns.begin(), self.clock.moment()
        if reason := "down" if self.life.stop.asked else turns.too_late(due, now):
            self.skip(turns, due, reason)
            return None
        if turns.job.exclusive:
            if not self._claim(turns, due, now):
                return None
            now = self.clock.moment()
        turns.number += 1
        turns.now_due, turns.started = due, now
        self.life.begin(turns.number, due, turns.job.name)
        with self.life.stop.timing(turns.tick_timeout, turns.job.name) as turns.timing:
            try:
                return turns.work()
            finally:
                turns.seconds = self.clock.moment().monotonic - now.monotonic

    def ended(self, turns: Turns, result: Any, error: BaseException | None) -> None:
        """The unit of work of a run has ended."""
        with turns.lock:
            started, turns.started = turns.started, None
        if started is None:
            return
        iteration = Iteration(
            turns.number, turns.now_due, started, turns.seconds, result, job=turns.job.name
        )
        turns.began, turns.ended = started.monotonic, iteration.ended.monotonic
        if error is None or isinstance(error, Exception):
            cut = turns.timing is not None and turns.timing.overdue_since is not None
            iteration = self.life.finish(iteration, error, turns.last, cut=cut)
            turns.last = self.last = iteration
            self._move_on(turns, iteration)
        else:
            self._raised = error
            reason = f"{type(error).__name__} in job {turns.job.name}"
            self.life.ask_to_stop(reason)
        self._note(turns, iteration, "" if error is None else one_line(error))

    def _move_on(self, turns: Turns, iteration: Iteration) -> None:
        """See to it that the loop knows when the job is next due, where its end decides that."""
        schedule = turns.job.schedule
        if schedule.is_fixed and iteration.error is None:
            if turns.due == NEVER:
                self.life.nudge()
            return
        if not self.life.settings.once:
            due = next_due(schedule, iteration, self.life.pace.since, self.clock.moment())
            if not schedule.is_fixed:
                turns.due = due
            else:
                turns.not_before = due.monotonic
                # An exclusive one has claimed this due time, and nobody shall run it twice.
                if iteration.problem is None or turns.job.exclusive:
                    return
                turns.retry = due
            self._came_back.append(turns)
        self.life.nudge()

    # The ledger

    def _label(self, due: Moment) -> datetime:
        """The due time as the ledger knows it. One that the wall clock shows a second time, because
        it was set back, is another one: a microsecond later."""
        again = sum(before >= due.wall for before in self._set_back)
        return due.utc + timedelta(microseconds=again)

    def _note(self, turns: Turns, iteration: Iteration, error: str) -> None:
        if self.ledger.off:
            return
        self.ledger.note(
            Entry(
                job=turns.job.name,
                due=self._label(iteration.due),
                status=Run.Status.FAILED if error else Run.Status.RAN,
                reason="forced" if error and self.life.stop.forced else "",
                late=iteration.late,
                started=iteration.started.wall,
                seconds=iteration.seconds,
                error=error,
            )
        )

    def skip(self, turns: Turns, due: Moment, reason: str) -> None:
        name = turns.job.name
        self.skipped[name, reason] += 1
        announce(signals.run_skipped, self.life.daemon, job=name, due=due, reason=reason)
        if reason == "down" and turns.job.catch_up and self.life.stop.asked:
            return  # left to the next start, which catches up on what has no row
        self.ledger.note(Entry(name, self._label(due), Run.Status.SKIPPED, reason))

    def _claim(self, turns: Turns, due: Moment, now: Moment) -> bool:
        """Whether this process is the one to run an exclusive due time."""
        late = max(0.0, now.monotonic - due.monotonic)
        entry = Entry(turns.job.name, self._label(due), Run.Status.RUNNING, late=late,
                      started=now.wall)  # fmt: skip
        try:
            return self.ledger.claim(entry)
        except Exception as error:
            self.ledger.complain(error)
            self.skip(turns, due, "ledger")
            return False
