"""Which failures are logged with a traceback: in a long outage, not every tick needs one."""

from __future__ import annotations

from daemonkit.exits import Exit
from daemonkit.iteration import Iteration

INTERVAL = 60.0
"""Seconds between two tracebacks of the same kind."""

KINDS_KEPT = 100
"""Beyond this number of kinds, all are forgotten."""


class Tracebacks:
    """Decides for each failure. It keeps no exception alive, and reads no clock."""

    def __init__(self) -> None:
        self._shown_at: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def failures_to_show(self, iteration: Iteration) -> int:
        """Return how many failures a traceback stands for; 0 if none must be logged now.

        A traceback is logged for the first failure of a kind, and then once a minute. Two failures
        of a job are of one kind if the same line raised the same class.
        """
        if getattr(iteration.error, "returncode", None) == Exit.USAGE:
            return 0  # its sentence says how to mend it
        kind, now = _kind(iteration), iteration.started.monotonic + iteration.seconds
        self._failures[kind] = failures = self._failures.get(kind, 0) + 1
        if now - self._shown_at.get(kind, float("-inf")) < INTERVAL:
            return 0
        if len(self._shown_at) >= KINDS_KEPT:
            self._shown_at.clear()
            self._failures.clear()
        self._shown_at[kind], self._failures[kind] = now, 0
        return failures


def _kind(iteration: Iteration) -> str:
    error = iteration.error
    raised_by = error.__traceback__ if error is not None else None
    while raised_by is not None and raised_by.tb_next is not None:
        raised_by = raised_by.tb_next
    code = raised_by.tb_frame.f_code.co_filename if raised_by is not None else ""
    line = raised_by.tb_lineno if raised_by is not None else 0
    kind = type(error)
    return f"{iteration.job} {kind.__module__}.{kind.__qualname__} {code}:{line}"
