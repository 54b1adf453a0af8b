"""Re-executing a process: the same pid, with the current code and settings."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from django.core.management.base import CommandError
from django.db import connections

from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.process import kept_sockets
from daemonkit.process.children import Children
from daemonkit.process.forced_end import CHILDREN_TIME, flush
from daemonkit.process.origin import REEXECUTED, Origin
from daemonkit.process.signal_pipe import STOP_SIGNALS


def reexecute(name: str, origin: Origin) -> NoReturn:
    """Execute this process's own command again in its place: same pid, new code.

    The new image starts as the first one did, with the same environment, folder and signal mask,
    and without children. Until it has its handlers, SIGTERM and SIGINT end it, as at any start, and
    SIGHUP is ignored. Call ``handle_pending_signals()`` first.

    Raises ``CommandError`` (exit code 1) if the program cannot be executed. By then connections
    are closed, children are ended and the signal handlers are reset. ``name`` is for the message.
    """
    connections.close_all()
    flush()
    _end_and_reap_children()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    environment = {
        **{name: text for name, text in origin.environment.items() if name != kept_sockets.KEPT},
        **kept_sockets.for_next_image(),
        REEXECUTED: str(os.getpid()),
    }
    try:
        if os.path.isdir(origin.folder):  # noqa: PTH112
            os.chdir(origin.folder)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        os.execve(origin.program, origin.command, environment)
    except OSError as error:
        raise CommandError(
            f"{name} cannot re-execute itself: {one_line(error)}", returncode=Exit.TICK_FAILED
        ) from error


def _end_and_reap_children() -> None:
    """End the children: the new image would never reap them."""
    children = Children(os.getpid())
    children.terminate()
    children.end(CHILDREN_TIME)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
