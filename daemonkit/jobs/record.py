"""The record of a daemon's jobs: announces the outcome of each due time, and writes it down."""

from __future__ import annotations

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
from daemonkit.signals import announce


class Record:
    """Records the outcome of each due time of one daemon's jobs. From any thread."""

    def __init__(self, life: Life, ledger: Ledger, wall_clock: WallClock) -> None:
        self._life, self._ledger, self._wall_clock = life, ledger, wall_clock
        self._catching_up = {job.name for job in life.settings.jobs if job.catch_up}

    def claim(self, job: str, due: Moment, now: Moment) -> bool:
        """Whether this process may run a due time of an exclusive job. A failed claim is a skip."""
        entry = Entry(
            job=job,
            due=self._wall_clock.label(due),
            status=Run.Status.RUNNING,
            late=max(0.0, now.monotonic - due.monotonic),
            started=now.wall,
        )
        try:
            is_ours = self._ledger.claim(entry)
        except Exception as error:
            self._ledger.complain(error)
            self.skipped(job, due, SkipReason.LEDGER)
            return False
        if not is_ours and self._life.once:
            self._life.give_up(Exit.TICK_FAILED, f"did not run {job}: another process has")
        return is_ours

    def ran(self, iteration: Iteration, *, failed: bool, error: str) -> None:
        """Record that a run has ended. ``error`` is the text of its failure for the ledger."""
        status = Run.Status.FAILED if failed else Run.Status.RAN
        self._note(iteration, status, "forced" if failed and self._life.stop.forced else "", error)

    def decided_to_skip(self, iteration: Iteration, why: str) -> None:
        """Record that a run has ended by ``self.skip()``."""
        self._note(iteration, Run.Status.SKIPPED, SkipReason.DECIDED.value, why)

    def _note(self, iteration: Iteration, status: str, reason: str, error: str) -> None:
        if not self._ledger.is_kept:
            return
        entry = Entry(
            job=iteration.job,
            due=self._wall_clock.label(iteration.due),
            status=status,
            reason=reason,
            late=iteration.late,
            started=iteration.started.wall,
            seconds=iteration.seconds,
            error=error,
        )
        self._ledger.note(entry)

    def skipped(self, job: str, due: Moment, reason: SkipReason) -> None:
        """Record that a due time has passed without a run."""
        life = self._life
        announce(signals.run_skipped, life.daemon, job=job, due=due, reason=reason)
        if life.stop.asked and reason is SkipReason.DOWN and job in self._catching_up:
            return  # it gets no row, so that the next start catches up on it
        label = self._wall_clock.label(due)
        self._ledger.note(Entry(job, label, Run.Status.SKIPPED, reason.value))
        if life.once and not life.stop.asked:
            life.give_up(Exit.TICK_FAILED, f"did not run {job}: {reason}")


def stored_text(error: BaseException) -> str:
    """The text of an error that is stored, as ``DAEMONKIT["store_errors"]`` says."""
    match conf.store_errors():
        case "text":
            return one_line(error)
        case "class":
            return type(error).__name__
        case _:
            return ""
