"""A time limit for C code that holds Python's lock (the GIL), so that no other thread can run.

``faulthandler`` waits in C, without the lock. If its timer is not restarted in time, it writes the
stacks of all threads and ends the process with exit code 1.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys

_output: list[int] = []


class DeadlockTimer:
    """Ends the process unless it is restarted in time.

    It replaces a timer that the project has set by ``faulthandler.dump_traceback_later()``: a
    process has only one.
    """

    def __init__(self) -> None:
        self._is_running = False

    def restart(self, seconds: float | None) -> None:
        """End the process after ``seconds``, unless this is called again before. None cancels."""
        if seconds is None:
            self.cancel()
        else:
            self._is_running = True
            faulthandler.dump_traceback_later(seconds, exit=True, file=_descriptor())

    def cancel(self) -> None:
        """Cancel the timer. Also call this before a fork: a child could not cancel it."""
        if self._is_running:
            self._is_running = False
            faulthandler.cancel_dump_traceback_later()


def _descriptor() -> int:
    """Where the stacks are written: stderr, or nowhere if it is closed."""
    if not _output:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            _output.append(sys.__stderr__.fileno())  # type: ignore[union-attr]
    if not _output:
        _output.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    return _output[0]
