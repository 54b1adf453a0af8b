"""The limits of a run that ends by what its ticks find: ``--until-empty`` and ``--max-work``."""

from __future__ import annotations

from typing import Protocol

from daemonkit.connections.units import fresh_connections
from daemonkit.errors import one_line
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.poll import Poll
from daemonkit.settings.parsing import usage
from daemonkit.verdict import Limit

UNTIL_EMPTY = "until_empty"


class Working(Protocol):
    """A daemon whose ticks find work."""

    @property
    def name(self) -> str: ...
    def left_over(self) -> str: ...


class WorkLimits:
    """What the ticks of one life have found. A tick that failed has found neither work nor nothing.

    Raises ``CommandError`` (exit code 2) for a schedule other than ``Poll``, and with ``--once``.
    """

    def __init__(
        self, daemon: Working, schedule: Schedule, *, until_empty: bool, max_work: int | None
    ) -> None:
        option = "--until-empty" if until_empty else "--max-work"
        if not isinstance(schedule, Poll):
            raise usage(
                f"{option} is for a daemon with Poll(), whose tick() says whether it found work: "
                f"{daemon.name} has {schedule}"
            )
        self._daemon, self._until_empty, self._max_work = daemon, until_empty, max_work
        self._worked = 0
        self._limit: Limit | None = None

    def reached(self) -> Limit | None:
        """The limit that is reached, if any."""
        return self._limit

    def note(self, last: Iteration) -> None:
        """Take a tick into account. Call it once for each."""
        if last.error is not None:
            return
        self._worked += bool(last.result)
        if self._until_empty and not last.result:
            left = self._left_over()
            text = f"nothing is left to do; {left}" if left else "nothing is left to do"
            self._limit = Limit(UNTIL_EMPTY, text)
        elif self._max_work and self._worked >= self._max_work:
            self._limit = Limit("max_work", f"max_work of {self._max_work} reached")

    def _left_over(self) -> str:
        try:
            with fresh_connections:
                return self._daemon.left_over()
        except Exception as error:  # the work is done, whatever this says
            return f"left_over() failed: {one_line(error)}"
