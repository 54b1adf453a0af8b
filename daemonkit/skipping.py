"""``self.skip()``: a tick, or a run of a job, that has nothing to do this time."""

from __future__ import annotations

from daemonkit import signals
from daemonkit.iteration import Iteration
from daemonkit.signals import Announcer, announce


class Skipped(Exception):
    """Raised by ``self.skip()``, with the reason as its text."""


def unless_skipped(
    error: BaseException, daemon: Announcer, iteration: Iteration
) -> BaseException | None:
    """The error of a tick or a run; None, after an announcement, if it has skipped."""
    if not isinstance(error, Skipped):
        return error
    due, job = iteration.due, iteration.job
    announce(signals.run_skipped, daemon, job=job, due=due, reason=str(error))
    return None
