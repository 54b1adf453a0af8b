"""``Iteration``: the result of one tick."""

from __future__ import annotations

import sys
import traceback
from typing import Any, NamedTuple

from daemonkit.clock import Moment
from daemonkit.errors import Problem, chain

_LONGEST_TEXT = 200
"""Characters of a result that a log line or a status shows."""

_FRAMES_KEEP_COPIES = sys.version_info < (3, 13)
"""Whether a frame keeps a copy of its variables after ``f_locals`` was read, as Sentry does. Since
PEP 667 it does not."""


class Iteration(NamedTuple):
    """One tick, as schedules, listeners, status and tests see it. It cannot be changed.

    ``seconds``
        How long the tick took, on the monotonic clock.
    ``result``, ``error``
        What ``tick()`` returned, or the exception that it raised.
    ``problem``
        What the error means if a database caused it, else None.
    ``failures``
        How many ticks in a row have failed, including this one; 0 after a successful tick.
    ``outages``
        How many of those failed because the database was away. They never end the process.
    ``pause``
        Seconds of back-off before the next try; 0 after a successful tick.
    ``job``
        The name of the job that ran; "" for ``tick()``.
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
        """The result as a short text for people; "" if there is nothing to show.

        A value that may query or compute when it is shown, such as a QuerySet or a DataFrame, is
        shown as the name of its class.
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
    """Whether an error, or one in a group of errors, is meant to end the process. All others,
    including ``asyncio.CancelledError``, only fail a tick."""
    if isinstance(error, BaseExceptionGroup):
        return any(ends_process(member) for member in error.exceptions)
    return isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit)


def release_frames(error: BaseException) -> None:
    """Clear the local variables of all frames in an error's traceback.

    Otherwise keeping the error would keep everything that the failed tick held. The traceback
    itself, with its lines of code, stays. Call this after all listeners have seen the error and
    the frame that caught it has returned.
    """
    for link in chain(error):
        traceback.clear_frames(link.__traceback__)
        step = link.__traceback__ if _FRAMES_KEEP_COPIES else None
        while step is not None:
            step.tb_frame.f_locals  # noqa: B018  reading it again updates the copy, which is then empty
            step = step.tb_next
