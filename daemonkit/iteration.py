"""What one tick came to."""

from __future__ import annotations

import sys
import traceback
from typing import Any, NamedTuple

from daemonkit.clock import Moment
from daemonkit.errors import Problem, chain

_LONGEST_TEXT = 200
"""Characters of a result that a log line or a status shows."""

_FRAMES_KEEP_COPIES = sys.version_info < (3, 13)
"""Whether a frame keeps a copy of its variables once anybody has looked at its ``f_locals``, as
Sentry does. Since PEP 667 it does not."""


class Iteration(NamedTuple):
    """One tick, as schedules, listeners, status and tests see it. A value: nobody can change it.

    ``seconds``
        How long the tick took, on the monotonic clock.
    ``result``, ``error``
        What ``tick()`` returned, or the exception that it raised.
    ``problem``
        What the error means if the database is behind it, else None.
    ``failures``
        How many ticks in a row have failed by now, this one included; 0 after a good one.
    ``outages``
        How many of those failed because the database was away. They end no process.
    ``pause``
        Seconds of back-off that the failure asks for before the next try; 0 after a good tick.
    ``job``
        The name of the job whose run this was; "" for ``tick()``.
    """

    number: int
    due: Moment
    started: Moment
    seconds: float
    result: Any = None
    error: BaseException | None = None
    problem: Problem | None = None
    failures: int = 0
    outages: int = 0
    pause: float = 0.0
    job: str = ""

    @property
    def ended(self) -> Moment:
        return self.started.later(self.seconds)

    @property
    def result_text(self) -> str:
        """The result in a few words for people; "" if there is nothing to say.

        Of a value that may query or compute when it is shown, such as a QuerySet or a DataFrame,
        it is the name of its class.
        """
        result, kind = self.result, type(self.result)
        if result is None or result is False:
            return ""
        is_plain = kind.__module__ == "builtins"
        if not is_plain and (hasattr(kind, "__iter__") or hasattr(kind, "__len__")):
            return f"<{kind.__qualname__}>"
        try:
            text = " ".join(str(result).split()) if not is_plain or result else ""
        except Exception:
            return f"<{kind.__qualname__}>"
        return text[:_LONGEST_TEXT]

    @property
    def late(self) -> float:
        """Seconds between the moment when the tick was due and its start."""
        return max(0.0, self.started.monotonic - self.due.monotonic)


def ends_process(error: BaseException) -> bool:
    """Whether an error, or one in a group of errors, is there to end the process. All others,
    ``asyncio.CancelledError`` among them, are the failure of one tick."""
    if isinstance(error, BaseExceptionGroup):
        return any(ends_process(member) for member in error.exceptions)
    return isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit)


def release_frames(error: BaseException) -> None:
    """Free the local variables of all the frames that an error has passed through.

    Whoever keeps the error would keep all that the failed tick held. The traceback stays, with its
    lines of code. Call it when everybody has seen the error, and when the frame that caught it has
    returned.
    """
    for link in chain(error):
        traceback.clear_frames(link.__traceback__)
        step = link.__traceback__ if _FRAMES_KEEP_COPIES else None
        while step is not None:
            step.tb_frame.f_locals  # noqa: B018  looking again brings the copy up to date: empty
            step = step.tb_next
