"""``self.scheduler``: APScheduler's own API, for jobs that are known only at run time.

It is an APScheduler scheduler with its memory store. Only what runs a job is ours: the main thread
asks ``runs()`` what is due, and each run is a unit of work on the daemon's pool.
"""

from __future__ import annotations

import inspect
from collections import deque
from datetime import datetime
from typing import Any

from apscheduler.events import (
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    EVENT_JOB_REMOVED,
    EVENT_JOB_SUBMITTED,
    JobEvent,
    JobExecutionEvent,
)
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.base import STATE_PAUSED, STATE_STOPPED, BaseScheduler
from apscheduler.util import undefined
from django.core.management.base import CommandError
from django.utils import timezone

from daemonkit.clock import NEVER, Moment
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration
from daemonkit.jobs.added_events import events_of, submission_event
from daemonkit.jobs.added_refusals import Refusals
from daemonkit.jobs.added_run import AddedJob, Submission
from daemonkit.jobs.added_store import MemoryStore
from daemonkit.jobs.added_trigger import ScheduleTrigger
from daemonkit.jobs.claims import JobClaim
from daemonkit.jobs.ledger import NoLedger
from daemonkit.jobs.record import Record
from daemonkit.jobs.run import Run
from daemonkit.jobs.skip_reason import SkipReason
from daemonkit.jobs.wall_clock import MIN_SET_BACK, WallClock
from daemonkit.life import Life
from daemonkit.listeners.log import logger
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.triggers import Trigger

ROUNDING = 0.00001
"""Seconds by which a due time may be ahead of the clock that woke for it."""

MAX_PASSED = 10
"""How many due times that passed together are announced as skipped, the newest ones."""


class AddedJobs(Refusals):
    """The jobs of ``add_jobs()``. Every public method may be called from any thread."""

    def __init__(self, scheduler: Any, record: Record, wall_clock: WallClock) -> None:
        self.life: Life = scheduler.life
        self._loop, self._record = scheduler, record
        self._unrecorded = Record(self.life, NoLedger(), wall_clock)
        self._added: dict[str, AddedJob] = {}
        self._exclusive: set[str] = set()
        self._anonymous: set[str] = set()
        self._retries: dict[str, tuple[Moment, Any]] = {}
        self._submissions: set[Submission] = set()
        self._ended: deque[Submission] = deque()
        """Those whose end is not noted yet."""
        self._methods = {job.name: job for job in self.life.settings.jobs}
        self._each_has_run = False
        now = self.life.begun
        self._offset = now.wall - now.monotonic
        super().__init__(
            timezone=timezone.get_default_timezone(), job_defaults={"misfire_grace_time": None}
        )

    def claim_of(self, name: str) -> JobClaim | None:
        claim: JobClaim | None = self._loop.claim_of(name)
        return claim

    # The life of the scheduler

    def open(self) -> None:
        """Start, and let the daemon add its jobs."""
        daemon: Any = self.life.daemon
        where = f"{daemon.name}.add_jobs()"
        if inspect.iscoroutinefunction(daemon.add_jobs):
            raise CommandError(f"{where} is a coroutine: write def, and async def for its jobs",
                               returncode=Exit.USAGE)  # fmt: skip
        try:
            inspect.signature(daemon.add_jobs).bind(self)
        except TypeError as error:
            raise CommandError(f"{where} is called with the scheduler besides self: {error}",
                               returncode=Exit.USAGE) from None  # fmt: skip
        BaseScheduler.start(self)
        try:
            daemon.add_jobs(self)
        except Exception as error:
            self._listeners.clear()
            BaseScheduler.shutdown(self)
            refused, self._refused = self._refused, None
            if error is not refused:
                raise
            text = error.args[0] if error.args else error
            raise CommandError(f"{where}: {text}", returncode=Exit.USAGE) from None
        for id in self._exclusive:
            self.claim_of(id)
        if self._exclusive:
            self._loop.require_tables()

    def close(self) -> None:
        if self.state != STATE_STOPPED:
            BaseScheduler.shutdown(self)

    def wakeup(self) -> None:
        self.life.nudge()

    def _create_default_jobstore(self) -> MemoryJobStore:
        self._store = MemoryStore()
        return self._store

    # APScheduler's calls

    def add_job(
        self,
        func: Any,
        trigger: Any = None,
        args: Any = None,
        kwargs: Any = None,
        id: str | None = None,
        name: str | None = None,
        misfire_grace_time: Any = undefined,
        coalesce: Any = undefined,
        max_instances: Any = undefined,
        next_run_time: Any = undefined,
        jobstore: str = "default",
        executor: str = "default",
        replace_existing: bool = False,
        *,
        exclusive: bool = False,
        **trigger_args: Any,
    ) -> Any:
        """As APScheduler's. With ``exclusive`` each due time is run by one process, of all on all
        hosts."""
        with self._refusing():
            if jobstore != "default":
                self._refuse_store(jobstore)
            if executor != "default":
                self._refuse_executor(executor)
            if exclusive and max_instances not in (undefined, 1):
                raise ValueError("exclusive=True allows one run at a time: remove max_instances")
            self._check(func, id, next_run_time, exclusive=exclusive)
            made = self._trigger(trigger, trigger_args, exclusive=exclusive)
            if next_run_time is undefined:
                next_run_time = made.get_next_fire_time(None, self._now())
            with self._jobstores_lock:
                try:
                    before = (id in self._exclusive), (id in self._anonymous)
                    if id is not None:
                        (self._exclusive.add if exclusive else self._exclusive.discard)(id)
                    job = super().add_job(
                        func, made, args, kwargs, id, name, misfire_grace_time, coalesce,
                        max_instances, next_run_time, replace_existing=replace_existing,
                    )  # fmt: skip
                except Exception as error:
                    if id is not None:
                        (self._exclusive.add if before[0] else self._exclusive.discard)(id)
                    if isinstance(error, ConflictingIdError):
                        error.args = (f"there is a job {id!r} already: give this one another id, "
                                      f"or say replace_existing=True",)  # fmt: skip
                    raise
                if id is None:
                    self._anonymous.add(job.id)
                elif replace_existing and (added := self._added.get(id)) is not None:
                    added.is_exclusive = exclusive
            return job

    def _check(self, func: Any, id: Any, next_run_time: Any, *, exclusive: bool) -> None:
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(f"{func.__qualname__}() is a generator, which returns before it works")
        self._check_method(id)
        if isinstance(id, str) and len(id) > 200:
            raise ValueError(f"the id {id[:40]}... is longer than 200 characters")
        if exclusive not in (True, False):
            raise ValueError(f"add_job() takes exclusive=True or False, not {exclusive!r}")
        if not exclusive:
            return
        if id is None:
            raise ValueError("exclusive=True needs an id, the same in every process")
        if not self.life.settings.ledger:
            raise ValueError("exclusive=True needs the ledger: remove ledger = False")
        if next_run_time not in (undefined, None):
            raise ValueError(_times_differ(id, "a next_run_time"))

    def _check_method(self, id: Any) -> None:
        if job := self._methods.get(id):
            why = ", and exclusive, so it needs the same times in every process" * job.exclusive
            raise ValueError(f"{id} is a method under @job{why}: change it in the class")

    def _trigger(self, trigger: Any, arguments: dict[str, Any], *, exclusive: bool) -> Any:
        """A trigger, made by this scheduler's clock."""
        if isinstance(trigger, Schedule):
            schedule = trigger.same_everywhere() if exclusive else trigger
            return ScheduleTrigger(schedule)
        if trigger in (None, "date") and arguments.get("run_date") is None:
            if exclusive:
                raise ValueError("exclusive=True with a date needs its run_date")
            arguments["run_date"] = self._now()
        try:
            made = self._create_trigger(trigger, arguments)
        except LookupError:
            known = ", ".join(sorted(self._trigger_plugins))
            raise LookupError(f"there is no trigger {trigger!r}; there are {known}") from None
        if trigger == "interval" and arguments.get("start_date") is None:
            made.start_date = self._now() + made.interval
        if exclusive:
            Trigger(made).same_everywhere()
        return made

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.life.clock.moment().wall, self.timezone)

    def modify_job(self, job_id: str, jobstore: str | None = None, **changes: Any) -> Any:
        with self._refusing():
            self._check_method(job_id)
            if "executor" in changes:
                self._refuse_executor(changes["executor"])
            if job_id in self._exclusive:
                if changes.get("next_run_time") is not None:
                    raise ValueError(_times_differ(job_id, "a next_run_time"))
                if "trigger" in changes:
                    Trigger(changes["trigger"]).same_everywhere()
            return super().modify_job(job_id, jobstore, **changes)

    def reschedule_job(
        self, job_id: str, jobstore: str | None = None, trigger: Any = None, **trigger_args: Any
    ) -> Any:
        with self._refusing():
            self._check_method(job_id)
            made = self._trigger(trigger, trigger_args, exclusive=job_id in self._exclusive)
            due = made.get_next_fire_time(None, self._now())
            return super().modify_job(job_id, jobstore, trigger=made, next_run_time=due)

    def resume_job(self, job_id: str, jobstore: str | None = None) -> Any:
        with self._refusing(), self._jobstores_lock:
            self._check_method(job_id)
            if (job := self.get_job(job_id, jobstore)) is None:
                raise JobLookupError(job_id)
            if due := job.trigger.get_next_fire_time(None, self._now()):
                return super().modify_job(job_id, jobstore, next_run_time=due)
            return self.remove_job(job_id, jobstore)

    def remove_job(self, job_id: str, jobstore: str | None = None) -> None:
        with self._refusing():
            self._check_method(job_id)
            super().remove_job(job_id, jobstore)
        with self._jobstores_lock:
            self._note_ended()
            if self._store.lookup_job(job_id) is None:
                self._retries.pop(job_id, None)
                self._forget(job_id)

    def remove_all_jobs(self, jobstore: str | None = None) -> None:
        super().remove_all_jobs(jobstore)
        with self._jobstores_lock:
            self._note_ended()
            self._retries = {id: each for id, each in self._retries.items()
                             if self._store.lookup_job(id)}  # fmt: skip
            for id in {*self._added, *self._exclusive, *self._anonymous}:
                self._forget(id)

    def _forget(self, id: str) -> None:
        """Forget a job that is in the store no more, once nothing of it runs."""
        added = self._added.get(id)
        is_known = self._store.lookup_job(id) is not None or id in self._retries
        if not is_known and (added is None or not added.instances):
            self._added.pop(id, None)
            self._exclusive.discard(id)
            self._anonymous.discard(id)

    # On the main thread: what is due

    def runs(self, now: Moment, reason_to_wait: str, left: int | None) -> list[Run]:
        """The runs that begin now, at most ``left``."""
        if self.state == STATE_PAUSED:
            return []
        ready: list[Run] = []
        removed: list[Any] = []
        events: list[Any] = []
        with self._jobstores_lock:
            self._note_ended()
            self._follow_the_clock(now)
            if self.life.once:
                return self._each_once(now)
            for id in [id for id, (due, _) in self._retries.items() if due <= now]:
                due, job = self._retries.pop(id)
                ready += self._decide(job, [due], now, reason_to_wait, events)
            moment = datetime.fromtimestamp(now.wall + ROUNDING, self.timezone)
            for job in self._store.get_due_jobs(moment):
                if left is not None and len(ready) >= left:
                    break
                times = self._take(job, moment, removed)
                dues = [now.at_wall(time.timestamp()) for time in times]
                ready += self._decide(job, dues, now, reason_to_wait, events)
        for event in removed + events:
            self._dispatch_event(event)
        return ready

    def _each_once(self, now: Moment) -> list[Run]:
        if self._each_has_run:
            return []
        self._each_has_run = True
        return [self._submit(job, [now]) for job in self._store.get_all_jobs()
                if job.next_run_time is not None]  # fmt: skip

    def _take(self, job: Any, now: datetime, removed: list[Any]) -> list[datetime]:
        """The due times of a job up to now. It goes on to the next one."""
        times, due = [], job.next_run_time
        try:
            while due is not None and due <= now:
                times.append(due)
                due = job.trigger.get_next_fire_time(due, now)
        except Exception:
            logger.exception("%s: its trigger failed, so it is paused", job.name)
            job.next_run_time = None
            self._store.update_job(job)
            return times[-1:]
        if due is not None:
            job.next_run_time = due
            self._store.update_job(job)
        else:
            self._added_job(job)  # while its id is still known
            self._store.remove_job(job.id)
            removed.append(JobEvent(EVENT_JOB_REMOVED, job.id, "default"))
        return times

    def _decide(
        self, job: Any, dues: list[Moment], now: Moment, reason_to_wait: str, events: list[Any]
    ) -> list[Run]:
        """The run that follows from due times that have passed, or none."""
        added = self._added_job(job)
        older, dues = (dues[:-1], dues[-1:]) if job.coalesce else ([], dues)
        for due in older[1 - MAX_PASSED :]:
            added.record.skipped(added.name, due, SkipReason.GRACE)
        if reason := self._skip_reason(job, added, dues[-1], now, reason_to_wait):
            for due in dues[-MAX_PASSED:]:
                added.record.skipped(added.name, due, reason)
            times = [self._time(due) for due in dues]
            if reason is SkipReason.OVERLAP:
                events.append(submission_event(EVENT_JOB_MAX_INSTANCES, job.id, times))
            else:
                events += [JobExecutionEvent(EVENT_JOB_MISSED, job.id, "default", time)
                           for time in times]  # fmt: skip
            self._forget(job.id)
            return []
        if self._listeners:
            times = [self._time(due) for due in dues]
            events.append(submission_event(EVENT_JOB_SUBMITTED, job.id, times))
        return [self._submit(job, dues)]

    def _submit(self, job: Any, dues: list[Moment]) -> Run:
        submission = Submission(self, job, self._added_job(job), dues)
        submission.added.instances += 1
        self._submissions.add(submission)
        return submission.next_run()

    def _skip_reason(
        self, job: Any, added: AddedJob, due: Moment, now: Moment, reason_to_wait: str
    ) -> SkipReason | None:
        if added.instances >= job.max_instances:
            return SkipReason.OVERLAP
        if due.monotonic < added.not_before - 0.001:
            return SkipReason.BACK_OFF
        return added.record.reason_to_wait(job.id, now, reason_to_wait)

    def _added_job(self, job: Any) -> AddedJob:
        if (found := self._added.get(job.id)) is None:
            is_anonymous = job.id in self._anonymous
            found = self._added[job.id] = AddedJob(
                job.name if is_anonymous else job.id,
                self._unrecorded if is_anonymous else self._record,
                is_exclusive=job.id in self._exclusive,
            )
        return found

    def _time(self, due: Moment) -> datetime:
        return datetime.fromtimestamp(round(due.wall, 6), self.timezone)

    def _follow_the_clock(self, now: Moment) -> None:
        """If the wall clock was set back, no job waits until it shows its due time again."""
        before, self._offset = self._offset, now.wall - now.monotonic
        shift = self._offset - before
        if shift > -MIN_SET_BACK:
            return
        moment = datetime.fromtimestamp(now.wall, self.timezone)
        for job in self._store.get_all_jobs():
            if (due := job.next_run_time) is None:
                continue
            again = job.trigger.get_next_fire_time(None, moment)
            if hasattr(job.trigger, "interval_length"):
                again = datetime.fromtimestamp(due.timestamp() + shift, self.timezone)
            if again is not None:
                job.next_run_time = again
                self._store.update_job(job)

    # What the dispatcher asks

    def next_due(self) -> Moment:
        """When the next added job is due; ``NEVER`` if none is."""
        if self.state == STATE_PAUSED or self.life.once:
            return NEVER
        now = self.life.clock.moment()
        with self._jobstores_lock:
            self._note_ended()
            self._follow_the_clock(now)
            due = self._store.get_next_run_time()
            first = min((due for due, _ in self._retries.values()), default=NEVER)
        if due is None:
            return first
        return min(first, now.at_wall(due.timestamp()))

    @property
    def is_at_rest(self) -> bool:
        return not self._submissions

    @property
    def is_over(self) -> bool:
        """Whether nothing will run any more. Other threads may always add jobs."""
        return self.life.once and self._each_has_run and self.is_at_rest

    def running(self) -> list[Run]:
        """The runs whose work is in progress."""
        submissions = list(self._submissions)
        return [run for each in submissions if (run := each.running) is not None]

    # From threads of the pool

    def go_on(self, run: Run) -> None:
        try:
            self._loop.pool.fulfil([(run, run.execute)])
        except RuntimeError:  # the pool is closed: the daemon ends
            run.cancel()

    def end_process(self, job: Any, error: BaseException) -> None:
        self._loop.end_process(job, error)

    def submission_ended(self, submission: Submission) -> None:
        """Leave its end to the main thread. Threads of the pool would wait for each other's
        lock."""
        self._ended.append(submission)
        if self._listeners:
            for event in events_of(submission, self._time):
                self._dispatch_event(event)
        self._submissions.discard(submission)
        if self.life.once or submission.has_failed:
            self.wakeup()

    def _note_ended(self) -> None:
        """Note the ends of submissions. The caller holds the lock."""
        while self._ended:
            submission = self._ended.popleft()
            submission.added.instances -= 1
            for _, iteration, _ in submission.outcomes:
                self._back_off(submission, iteration)
            self._forget(submission.id)

    def _back_off(self, submission: Submission, iteration: Iteration | None) -> None:
        if iteration is None or iteration.error is None or self.life.once:
            return
        ended = iteration.started.later(iteration.seconds)
        again = ended.later(iteration.pause)
        submission.added.not_before = again.monotonic
        # The due time of an exclusive job is claimed, and must not run twice.
        if iteration.problem is not None and not submission.is_claimed:
            self._retries[submission.id] = (again, submission.job)


def _times_differ(id: str, what: str) -> str:
    return (
        f"{id} is exclusive, so it needs the same times in every process: say no {what}, but give "
        f"it a trigger"
    )
