"""Executing itself anew: the same process, with the code and the settings of today."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from django.core.management.base import CommandError
from django.db import connections

from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.process.children import Children
from daemonkit.process.forced_end import CHILDREN_TIME, flush
from daemonkit.process.origin import EXECUTED_ANEW, Origin
from daemonkit.process.signal_bytes import STOP_SIGNALS


def execute_anew(name: str, origin: Origin) -> NoReturn:
    """Replace this process by a new start of its own command: same pid, new code.

    The new image starts as the first one did: same environment, folder and signal mask, and no
    children. A SIGTERM or SIGINT that comes before it has handlers ends it, as at any start;
    SIGHUP is ignored until then. Call it after ``last_look()``.

    Raises ``CommandError`` (1), which names ``name``, where the program is gone: the process is
    then as it was, but for its connections, its children and the signals.
    """
    connections.close_all()
    flush()
    _end_and_reap_children()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    environment = {**origin.environment, EXECUTED_ANEW: str(os.getpid())}
    try:
        if os.path.isdir(origin.folder):  # noqa: PTH112
            os.chdir(origin.folder)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        os.execve(origin.program, origin.command, environment)
    except OSError as error:
        raise CommandError(
            f"{name} cannot execute itself anew: {one_line(error)}", returncode=Exit.TICK_FAILED
        ) from error


def _end_and_reap_children() -> None:
    """The new image knows nothing of the children of this one: they would become zombies."""
    children = Children(os.getpid())
    children.terminate()
    children.end(CHILDREN_TIME)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
