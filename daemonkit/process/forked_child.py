"""Ends a child process that was forked by a tick, a job or other work of a daemon.

The child is a copy of the process in which only the thread of that work runs. If it returned from
the work, it would continue as a second daemon, or wait for work that never comes.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn


def end_if_forked(process: int, error: BaseException | None) -> None:
    """End this process if it is a child of ``process``, in which the work began. The work has ended
    with ``error``, or well."""
    if os.getpid() != process:
        end(error)


def end(error: BaseException | None) -> NoReturn:
    """End this process as Python ends one whose main program was left by ``error``, or is over."""
    code = 1
    try:
        code = _exit_code(error)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    """The exit code for an exception. Prints it as Python does."""
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1
