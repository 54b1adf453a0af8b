"""The log: a listener that writes a line for each event of a daemon's life."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from django.dispatch import Signal

from daemonkit import signals
from daemonkit.clock import Moment
from daemonkit.errors import Problem, one_line
from daemonkit.formats import formatter_for
from daemonkit.iteration import Iteration
from daemonkit.listeners.listener import Listener
from daemonkit.schedules.durations import duration_text

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.listeners.skips import Skips
    from daemonkit.listeners.tracebacks import Tracebacks

logger = logging.getLogger("daemonkit")

_SELF_EXPLAINING = (Problem.UNREACHABLE, Problem.MISCONFIGURED)
"""Problems that the database's own message explains, so that no traceback is logged."""


class Log(Listener):
    """The listener that writes the log."""

    daemon: Daemon

    def __init__(self, daemon: Daemon, *, verbosity: int) -> None:
        super().__init__(daemon)
        self.name = daemon.name
        self.tick_level = logging.INFO if verbosity > 1 else logging.DEBUG
        self._logs_ticks = logger.isEnabledFor(self.tick_level) or verbosity > 1
        self._tracebacks: Tracebacks | None = None
        self._skips: Skips | None = None

    def moments(self) -> dict[Signal, Callable[..., None]]:
        moments: dict[Signal, Callable[..., None]] = {
            signals.daemon_started: self.started,
            signals.database_awaited: self.awaited,
            signals.migrations_awaited: self.migrations_awaited,
            signals.iteration_failed: self.failed,
            signals.daemon_beat: self.beat,
            signals.tick_overdue: self.overdue,
            signals.run_skipped: self.skipped,
            signals.standing_by: self.standing_by,
            signals.leadership_gained: self.gained,
            signals.leadership_lost: self.lost,
            signals.reload_failed: self.reload_failed,
            signals.daemon_reloading: self.reloading,
            signals.daemon_stopping: self.stopping,
            signals.daemon_forced: self.forced,
            signals.daemon_stopped: self.stopped,
        }
        if self._logs_ticks:
            moments[signals.iteration_finished] = self.finished
        return moments

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Write the log of this daemon while the block runs, with its name in each record."""
        logger.addFilter(self._add_name)
        try:
            with super().listening():
                yield
        finally:
            logger.removeFilter(self._add_name)

    def _add_name(self, record: logging.LogRecord) -> bool:
        """Add the daemon's name to a record, for formatters such as ``AsJSON``."""
        record.__dict__.setdefault("daemon", self.name)
        return True

    def started(self, **_: Any) -> None:
        again = ""
        if "INVOCATION_ID" in os.environ and not self.daemon.is_supervised:
            from daemonkit.listeners.starts import starts_text  # used only under systemd

            again = starts_text(self.name)
        schedule = self.daemon.life.schedule
        logger.info("%s started: %s%s", self.name, schedule, f" ({again})" if again else "")

    def awaited(self, error: Exception, seconds: float, **_: Any) -> None:
        logger.error(
            "%s waits for the database, next try in %.1f s: %s",
            self.name,
            seconds,
            one_line(error),
        )

    def migrations_awaited(self, migrations: str, **_: Any) -> None:
        logger.warning("%s waits for migrations: %s", self.name, migrations)

    def finished(self, iteration: Iteration, **_: Any) -> None:
        if iteration.error is None:
            text = iteration.result_text
            logger.log(
                self.tick_level,
                "%s tick %d took %s%s",
                self._subject(iteration.job),
                iteration.number,
                duration_text(iteration.seconds),
                f": {text}" if text else "",
                extra=_facts(iteration),
            )

    def failed(self, iteration: Iteration, **_: Any) -> None:
        meaning = f" ({iteration.problem.value})" if iteration.problem else ""
        back_off = f"{iteration.pause:.1f} s" if iteration.pause else "none"
        tries = f", {iteration.failures} in a row, back-off {back_off}"
        shown = 0 if iteration.problem in _SELF_EXPLAINING else self._shown_failures(iteration)
        logger.error(
            "%s tick %d failed after %s%s%s: %s%s",
            self._subject(iteration.job),
            iteration.number,
            duration_text(iteration.seconds),
            meaning,
            "" if self.daemon.life.once else tries,
            one_line(iteration.error) if iteration.error else "",
            f" (one traceback for {shown} such failures)" if shown > 1 else "",
            exc_info=iteration.error if shown else None,
            extra=_facts(iteration),
        )

    def _shown_failures(self, iteration: Iteration) -> int:
        if self._tracebacks is None:
            from daemonkit.listeners.tracebacks import Tracebacks  # not before something fails

            self._tracebacks = Tracebacks()
        return self._tracebacks.failures_to_show(iteration)

    def beat(self, message: str, job: str, **_: Any) -> None:
        if message:
            logger.log(
                self.tick_level, "%s %s", self._subject(job), message, extra={"job": job or None}
            )

    def overdue(self, seconds: float, stack: str, job: str, **_: Any) -> None:
        logger.error(
            "%s is past its tick_timeout of %s; its database connections are cut. Its stack:\n%s",
            f"{self.name} {job or 'tick'}",
            duration_text(seconds),
            stack,
            extra={"job": job or None},
        )

    def skipped(self, job: str, due: Moment, reason: str, **_: Any) -> None:
        if self._skips is None:
            from daemonkit.listeners.skips import Skips  # a loop skips nothing

            self._skips = Skips(self.name)
        self._skips.log(job, due, reason)

    def _subject(self, job: str) -> str:
        return f"{self.name} {job}" if job not in ("", "tick") else self.name

    def standing_by(self, leader: str, **_: Any) -> None:
        logger.info("%s stands by: %s leads", self.name, leader)

    def gained(self, epoch: int, **_: Any) -> None:
        logger.info("%s leads, epoch %d", self.name, epoch)

    def lost(self, reason: str, **_: Any) -> None:
        logger.warning("%s no longer leads: %s", self.name, reason)

    def reload_failed(self, reason: str, **_: Any) -> None:
        logger.error("%s goes on with the old code: %s", self.name, reason)

    def reloading(self, reason: str, **_: Any) -> None:
        logger.info("%s reloads: %s", self.name, reason)

    def stopping(self, reason: str, **_: Any) -> None:
        logger.info("%s stops: %s", self.name, reason)

    def forced(self, reason: str, **_: Any) -> None:
        jobs = ", ".join(self.daemon.life.stop.cut_short)
        logger.critical(
            "%s forced to end: %s%s. Its database connections were cut; a statement or COMMIT that "
            "was on the wire has an unknown outcome",
            self.name,
            reason,
            f" (running: {jobs})" if jobs else "",
            extra={"job": jobs or None},
        )

    def stopped(self, reason: str, **_: Any) -> None:
        logger.info("%s stopped: %s", self.name, reason)


def _facts(iteration: Iteration) -> dict[str, Any]:
    return {
        "job": iteration.job or None,
        "tick": iteration.number,
        "seconds": round(iteration.seconds, 6),
        "outcome": "succeeded" if iteration.error is None else "failed",
    }


@contextlib.contextmanager
def plain_logging(verbosity: int, log_format: str | None = None) -> Iterator[None]:
    """Write daemonkit's log to stderr while the block runs.

    Does nothing in a project that has configured logging for daemonkit, unless ``log_format``, one
    of the ``FORMATS``, is given. ``verbosity`` 0 means warnings only.
    """
    if logger.hasHandlers() and log_format is None:
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_for(log_format or "auto", sys.stderr))
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:] = [handler]
    logger.propagate = log_format is None
    logger.setLevel(logging.INFO if verbosity else logging.WARNING)
    try:
        yield
    finally:
        logger.handlers[:], level, logger.propagate = before
        logger.setLevel(level)
