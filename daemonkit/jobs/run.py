"""One run of a job, on a thread of the pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from daemonkit.clock import Moment
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration, ends_process, release_frames
from daemonkit.jobs.atomic import Answer, AtomicClaim
from daemonkit.jobs.claims import JobClaim
from daemonkit.jobs.record import Record, stored_text
from daemonkit.jobs.skip_reason import SkipReason
from daemonkit.life import Life
from daemonkit.listeners.log import logger
from daemonkit.process.stopping import Tick
from daemonkit.schedules.base import Schedule
from daemonkit.skipping import Skipped


class Owner(Protocol):
    """The job that a run belongs to."""

    name: str
    schedule: Schedule
    claim: JobClaim | None
    atomic: AtomicClaim | None
    is_claimed: bool
    waits_in_thread: bool
    life: Life
    record: Record
    tick_timeout: float | None
    runs: int
    last: Iteration | None

    def work(self) -> Any: ...
    def begin(self, run: Run, now: Moment) -> SkipReason | None: ...
    def work_ended(self, began: Moment, seconds: float) -> None: ...
    def postpone(self, run: Run, seconds: float) -> None: ...
    def end(self, iteration: Iteration | None, run: Run) -> None: ...
    def end_process(self, error: BaseException) -> None: ...


class Run:
    """One run of a job, from its due time until its outcome is recorded.

    The pool calls ``execute()`` as a unit of work. It then sets the result or error of the run, as
    it does for a future.
    """

    __slots__ = ("_kept", "due", "job", "number", "seconds", "started", "timing", "tries")

    def __init__(self, job: Owner, due: Moment, tries: tuple[str, ...] = ()) -> None:
        self.job, self.due, self.tries = job, due, tries
        self.number = 0
        self.started: Moment | None = None
        self.seconds = 0.0
        self.timing: Tick | None = None
        self._kept: Any = None

    def execute(self) -> Any:
        """Do the job's work, unless it may not begin any more."""
        job, life = self.job, self.job.life
        now = life.clock.moment()
        if reason := job.begin(self, now):
            job.record.skipped(job.name, self.due, reason)
            return None
        if job.is_claimed:
            if not self._is_claimed(now):
                return None
            now = life.clock.moment()
        return self._work(now) if job.atomic is None else self._work_atomically(job.atomic, now)

    def _work(self, now: Moment) -> Any:
        job, life = self.job, self.job.life
        job.runs += 1
        self.number, self.started = job.runs, now
        life.begin(self.number, self.due, job.name)
        occasion = self.due, job.schedule, len(self.tries) + 1
        with life.stop.timing(job.tick_timeout, job.name, occasion) as self.timing:
            try:
                with _to_the_end(self.timing):
                    result = job.work()
                    if result is not None:
                        result, self._kept = life.judge(result, job.schedule)
                return result
            finally:
                self.seconds = life.clock.moment().monotonic - now.monotonic
                job.work_ended(now, self.seconds)

    def _work_atomically(self, claim: AtomicClaim, now: Moment) -> Any:
        """Do the work in the transaction that claims the due time."""
        record, name = self.job.record, self.job.name
        entry = record.claimed(name, self.due, now)
        with claim.transaction(entry, record.replaced, is_retry=bool(self.tries)) as answer:
            if answer is Answer.OURS:
                result = self._work(now)
                outcome = self.iteration(now, self.seconds, result)
                claim.commit_with(record.outcome(outcome, self.tries))
                return result
        if answer is Answer.BUSY:
            record.skipped(name, self.due, SkipReason.OVERLAP)
        else:
            record.is_over(name)
        return None

    def _is_claimed(self, now: Moment) -> bool:
        """Whether this process may do the work now. If another process runs the job, this run is
        postponed; in a life that counts its runs, its thread waits instead."""
        job, life, claim = self.job, self.job.life, self.job.claim
        take = None if claim is None else claim.take
        is_new = not self.tries
        while pause := job.record.claim(job.name, self.due, now, take, is_new=is_new):
            if not job.waits_in_thread:
                job.postpone(self, pause)
                return False
            waited = life.clock.moment().monotonic - now.monotonic
            if claim is not None and life.once and waited > claim.patience:
                holder = claim.other_holder
                life.give_up(Exit.TICK_FAILED, f"did not run {job.name}: {holder} runs it")
                return False
            life.clock.wait(pause, life.stop.wait)
            if life.stop.asked:
                job.record.skipped(job.name, self.due, SkipReason.DOWN)
                return False
        return pause is not None

    # What the pool calls, as for a future

    def set_running_or_notify_cancel(self) -> bool:
        return True

    def set_result(self, result: Any) -> None:
        self.end(result, None)

    def set_exception(self, error: BaseException) -> None:
        self.end(None, error)

    def cancel(self) -> bool:
        """Skip the run: no thread has begun it, and none will."""
        self.job.record.skipped(self.job.name, self.due, SkipReason.DOWN)
        self.job.end(None, self)
        return True

    def end(self, result: Any, error: BaseException | None) -> None:
        """Announce and record the outcome of the run."""
        iteration = None
        try:
            if self.started is None and error is not None:  # it failed before the job began
                self.job.runs += 1
                self.number, self.started = self.job.runs, self.job.life.clock.moment()
            if self.started is not None:
                iteration = self.iteration(self.started, self.seconds, result)
                iteration = self._tell(iteration, error)
        except BaseException as raised:  # by a listener or on_error()
            if ends_process(raised):
                self.job.end_process(raised)
            else:
                logger.exception("%s: the end of its run was not noted", self.job.name)
        finally:
            if iteration is not None and result is not None:
                iteration = iteration._replace(result=self._kept)
            self.job.end(iteration, self)
            if error is not None and not self._is_raised_at_end:
                release_frames(error)

    @property
    def _is_raised_at_end(self) -> bool:
        """Whether the life raises the error once more when it ends."""
        return self.job.life.once or self.job.life.verdict.is_over

    def iteration(self, started: Moment, seconds: float, result: Any = None) -> Iteration:
        return Iteration(self.number, self.due, started, seconds, result, job=self.job.name)

    def _tell(self, iteration: Iteration, error: BaseException | None) -> Iteration:
        job = self.job
        text = "" if error is None else stored_text(error)
        if error is not None and ends_process(error):
            job.end_process(error)
        else:
            timing = self.timing
            cut = timing is not None and timing.overdue_since is not None
            cut = cut or (job.claim is not None and job.claim.was_lost)
            last = None if timing is not None and timing.has_beaten else job.last
            iteration = job.life.finish(iteration, error, last, cut=cut)
        if job.atomic is not None and error is None:
            return iteration  # its row was committed with its work
        if isinstance(error, Skipped):
            job.record.decided_to_skip(iteration, self.tries, str(error))
        else:
            job.record.ran(iteration, self.tries, failed=error is not None, error=text)
        return iteration


@contextlib.contextmanager
def _to_the_end(timing: Tick) -> Iterator[None]:
    """What is done at the end of the work, such as waiting for a ``Pool``, belongs to the run."""
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        if ends_process(raised):
            raise
        error = raised
    try:
        error = timing.error_at_end(error)
        if error is not None:
            raise error
    finally:
        del error  # breaks a cycle: its traceback refers to this frame
