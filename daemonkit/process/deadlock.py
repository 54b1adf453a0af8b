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


def end_unless_called_within(seconds: float) -> None:
    """End the process unless this is called again within ``seconds``. It replaces a timer that the
    project has set by ``faulthandler.dump_traceback_later()``: a process has only one."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_descriptor())


def cancel() -> None:
    """Cancel the timer. Also call this before a fork: a child could not cancel it."""
    faulthandler.cancel_dump_traceback_later()


def _descriptor() -> int:
    """Where the stacks are written: stderr, or nowhere if it is closed."""
    if not _output:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            _output.append(sys.__stderr__.fileno())  # type: ignore[union-attr]
    if not _output:
        _output.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    return _output[0]
