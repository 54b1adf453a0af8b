"""Executing itself anew: the same process, with the code and the settings of today.

Nothing is lost meanwhile: the watcher has acted upon the signals that came before
(``handlers.last_look``), and one that comes before the new image has its handlers is blocked, and
waits. ``on_signals`` lets it in.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from django.core.management.base import CommandError
from django.db import connections

from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.process.watcher import flush

NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Environment variables by which systemd and one process speak, and no other."""

handed_on: dict[str, str] = {}
"""Environment variables that were taken away from our children, and that the new image needs."""


def working_folder() -> str | None:
    """$PWD, if it names the folder that we are in: it keeps the symbolic links of the path, and may
    name another folder tomorrow, such as the next release behind ``current``."""
    folder = os.environ.get("PWD", "")
    try:
        return folder if Path(folder).is_absolute() and Path(folder).samefile(".") else None
    except OSError:
        return None


def execute_anew(name: str, folder: str | None) -> NoReturn:
    """Replace this process by a new start of its own command: same pid, new code.

    ``folder`` is what ``working_folder()`` said at the start; it is changed to if it still is one.
    Raises ``CommandError`` (1), which names ``name``, where the program is gone: the process is
    then as it was, but for its connections and the signals, which are blocked and unheard.
    """
    connections.close_all()
    flush()
    for signum in (signal.SIGTERM, signal.SIGINT):  # to end is better than to miss it: a thread of
        signal.signal(signum, signal.SIG_DFL)  # the project's may not have blocked them
    program, *arguments = sys.orig_argv
    path = program if os.sep in program else sys.executable
    try:
        if folder is not None and Path(folder).is_dir():
            os.chdir(folder)
        os.execve(path, [program, *arguments], {**os.environ, **handed_on})
    except OSError as error:
        raise CommandError(
            f"{name} cannot execute itself anew: {one_line(error)}", returncode=Exit.TICK_FAILED
        ) from error
