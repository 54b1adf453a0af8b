"""What a forked worker process does before and after it runs the daemon."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from django.db import connections

from daemonkit.exits import Exit
from daemonkit.process.forced_end import flush
from daemonkit.process.origin import NOT_FOR_CHILDREN
from daemonkit.process.signal_handlers import on_signals
from daemonkit.process.watched import Unattended
from daemonkit.signals import Announcer
from daemonkit.workers.labels import finish_lines, label_output
from daemonkit.workers.orders import Orders
from daemonkit.workers.reports import Reports


def work(
    daemon: Announcer,
    label: str,
    live: Callable[[], Any],
    *,
    stop_timeout: float,
    orders: int,
    reports: int,
) -> NoReturn:
    """Run the daemon in a child that was just forked, and end the process.

    It never returns: the frames above belong to the parent. The exit codes are the same as those
    of a daemon without a supervisor. ``orders`` and ``reports`` are the descriptors of two pipes.
    """
    around_life = Unattended()
    around_life.stop_timeout = stop_timeout
    code: int = Exit.TICK_FAILED
    try:
        _leave_the_parent(label)
        with (
            on_signals(around_life, Orders(orders), to_the_end=True) as watcher,
            Reports(daemon, reports).listening(),
        ):
            code = _exit_code_of(live)
            if not watcher.stop.forced:
                watcher.let_process_end(now=True)
                _end_as_an_interpreter_does()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            flush()
            finish_lines()
        os._exit(code)


def _end_as_an_interpreter_does() -> None:
    """Wait for threads and run the ``atexit`` functions, as the interpreter does at its end.

    ``logging`` and ``multiprocessing`` clean up in such functions. The interpreter's other shutdown
    steps are left out: they would close the parent's sessions.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    connections.close_all()


def _leave_the_parent(label: str) -> None:
    """Drop what belongs only to the supervisor, and label the output."""
    for name in NOT_FOR_CHILDREN:  # only the supervisor talks to systemd
        os.environ.pop(name, None)
    label_output(label)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # only the parent removes its temporary folders
    if multiprocessing := sys.modules.get("multiprocessing.process"):
        multiprocessing._children.clear()
    with contextlib.suppress(AttributeError, ValueError, OSError):
        faulthandler.enable(sys.__stderr__.fileno())  # type: ignore[union-attr]  # for SIGABRT


def _exit_code_of(live: Callable[[], Any]) -> int:
    try:
        live()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or Exit.OK
        sys.stderr.write(f"{end.code}\n")
        return Exit.TICK_FAILED
    except BaseException:
        traceback.print_exc()
        return Exit.TICK_FAILED
    return Exit.OK
