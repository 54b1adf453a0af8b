"""The record of a daemon's jobs: announces the outcome of each due time, and writes it down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from daemonkit import conf, signals
from daemonkit.clock import Moment
from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration
from daemonkit.jobs.ledger import Ledger
from daemonkit.jobs.rows import Entry
from daemonkit.jobs.skip_reason import SkipReason
from daemonkit.jobs.wall_clock import WallClock
from daemonkit.life import Life
from daemonkit.models import Run
from daemonkit.schedules.backfill import Backfill
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce

Take: TypeAlias = Callable[[float], float]
"""Takes a claim within these seconds. Returns 0, or the seconds until the next try."""


class Record:
    """Records the outcome of each due time of one daemon's jobs. From any thread."""

    def __init__(self, life: Life, ledger: Ledger, wall_clock: WallClock) -> None:
        self._life, self._ledger, self._wall_clock = life, ledger, wall_clock
        self.replaced = replaced_by(life.settings)
        """The states of earlier rows that a claim replaces."""
        self._offsets = {job.name: job.schedule.offset for job in life.settings.jobs}
        self._atomic = {job.name for job in life.settings.jobs if job.is_atomic}
        self._catching_up = {job.name for job in life.settings.jobs if job.catch_up}

    def reason_to_wait(self, job: str, now: Moment, common: str) -> SkipReason | None:
        """Why a job does not run now: the ``common`` reason of all jobs, or a pause of this one."""
        if common:
            return SkipReason(common)
        steering = self._life.steering
        is_paused = steering is not None and steering.pauses.holds(job, now)
        return SkipReason.PAUSED if is_paused else None

    def claim(
        self, job: str, due: Moment, now: Moment, take: Take | None, *, is_new: bool = True
    ) -> float | None:
        """Claim a due time of an exclusive job for this process, and the job itself by ``take``.

        Returns 0 if this process may run it, and None if it is over: another process has run it,
        or it was skipped because the database did not answer. If another process runs the job,
        returns the seconds until the next try. A due time that is tried again is not ``is_new``:
        it is this process's already.
        """
        entry = self.claimed(job, due, now)
        try:
            if take is not None and (pause := take(self._ledger.claim_seconds / 2)):
                return pause
            is_ours = not is_new or self._ledger.claim(entry, self.replaced)
        except Exception as error:
            self._ledger.complain(error)
            self.skipped(job, due, SkipReason.LEDGER)
            return None
        if not is_ours:
            self.is_over(job)
        return 0.0 if is_ours else None

    def claimed(self, job: str, due: Moment, now: Moment) -> Entry:
        """The row of a due time whose run begins now."""
        return Entry(
            job=job,
            due=self._label(job, due),
            status=Run.Status.RUNNING,
            late=max(0.0, now.monotonic - due.monotonic),
            started=now.wall,
        )

    def is_over(self, job: str) -> None:
        """Note that another process has run a due time."""
        if self._life.once:
            again = "; --again runs it again" if len(self.replaced) > 1 else ""
            self._life.give_up(Exit.TICK_FAILED, f"did not run {job}: another process has{again}")

    def _label(self, job: str, due: Moment) -> datetime:
        """The due time for the ledger: before jitter."""
        return self._wall_clock.label(due.later(-self._offsets.get(job, 0.0)))

    def ran(
        self, iteration: Iteration, tries: tuple[str, ...] = (), *, failed: bool, error: str
    ) -> None:
        """Record that a run has ended. ``error`` is the text of its failure for the ledger, and
        ``tries`` are those of the tries before it."""
        status = Run.Status.FAILED if failed else Run.Status.RAN
        reason = "forced" if failed and self._life.stop.forced else ""
        self._note(iteration, tries, status, reason, error)

    def outcome(self, iteration: Iteration, tries: tuple[str, ...]) -> Entry:
        """The row of a run that has succeeded."""
        return self._entry(iteration, tries, Run.Status.RAN, "", "")

    def decided_to_skip(self, iteration: Iteration, tries: tuple[str, ...], why: str) -> None:
        """Record that a run has ended by ``self.skip()``."""
        self._note(iteration, tries, Run.Status.SKIPPED, SkipReason.DECIDED.value, why)

    def _note(
        self, iteration: Iteration, tries: tuple[str, ...], status: str, reason: str, error: str
    ) -> None:
        if self._ledger.is_kept:
            self._ledger.note(self._entry(iteration, tries, status, reason, error))

    def _entry(
        self, iteration: Iteration, tries: tuple[str, ...], status: str, reason: str, error: str
    ) -> Entry:
        return Entry(
            job=iteration.job,
            due=self._label(iteration.job, iteration.due),
            status=status,
            reason=reason,
            late=iteration.late,
            started=iteration.started.wall,
            seconds=iteration.seconds,
            error=error,
            attempt=len(tries) + 1,
            tries=tries,
            result=iteration.result_text,
            is_tentative=iteration.job in self._atomic,
        )

    def skipped(self, job: str, due: Moment, reason: SkipReason) -> None:
        """Record that a due time has passed without a run."""
        life = self._life
        announce(signals.run_skipped, life.daemon, job=job, due=due, reason=reason)
        if life.stop.asked and reason is SkipReason.DOWN and job in self._catching_up:
            return  # it gets no row, so that the next start catches up on it
        label = self._label(job, due)
        self._ledger.note(Entry(job, label, Run.Status.SKIPPED, reason.value))
        if life.once and not life.stop.asked:
            life.give_up(Exit.TICK_FAILED, f"did not run {job}: {reason}")


def replaced_by(settings: Settings) -> tuple[str, ...]:
    """The states of rows whose due times this life may run though they have a row."""
    if settings.again:
        return tuple(Run.Status.values)
    if any(isinstance(job.schedule, Backfill) for job in settings.jobs):
        return (Run.Status.SKIPPED, Run.Status.FAILED)
    return (Run.Status.SKIPPED,)


def stored_text(error: BaseException) -> str:
    """The text of an error that is stored, as ``DAEMONKIT["store_errors"]`` says."""
    match conf.store_errors():
        case "text":
            return one_line(error)
        case "class":
            return type(error).__name__
        case _:
            return ""
