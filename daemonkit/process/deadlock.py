"""The end of a process in which C code keeps Python's lock, so that no thread of ours can run.

``faulthandler`` waits in C, and needs no lock: when it is not told in time that Python runs, it
writes the stacks of all threads and ends the process with exit code 1.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys

_output: list[int] = []


def expect_python_within(seconds: float) -> None:
    """End the process unless this is called again within so many seconds. There is one timer for
    the process: it replaces that of a project's own ``faulthandler.dump_traceback_later()``."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_descriptor())


def expect_nothing() -> None:
    """Take the timer back. Also needed before a fork: a child could not."""
    faulthandler.cancel_dump_traceback_later()


def _descriptor() -> int:
    """Where the stacks are written: stderr, or nowhere if it is closed."""
    if not _output:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            _output.append(sys.__stderr__.fileno())  # type: ignore[union-attr]
    if not _output:
        _output.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    return _output[0]
