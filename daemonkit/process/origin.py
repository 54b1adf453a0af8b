"""How this process was first started: its command, environment and working folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

REEXECUTED = "DAEMONKIT_REEXECUTED"
"""An environment variable that holds the pid of a process that has re-executed itself. Such a
process ignores SIGHUP while it starts, so that a second SIGHUP does not kill it."""

TRIAL = "DAEMONKIT_TRIAL"
"""An environment variable that marks a process as a trial of new code; see ``trial.py``."""

NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Environment variables that systemd sets for one process only."""


class Origin(NamedTuple):
    """What a process needs to start again as it was first started. ``folder`` may contain symbolic
    links, which may point elsewhere after a deployment."""

    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str

    @classmethod
    def of_this_process(cls) -> Origin:
        """Call this before the working folder changes. Later changes of the environment, after the
        process was executed, do not count."""
        environment = _first_environment()
        environment.pop(REEXECUTED, None)
        return cls(tuple(sys.orig_argv), environment, working_folder() or os.getcwd())  # noqa: PTH109

    @property
    def program(self) -> str:
        """The path to execute; if relative, then to ``folder``."""
        return self.command[0] if os.sep in self.command[0] else sys.executable


def working_folder() -> str | None:
    """$PWD, if it names the current folder. It keeps symbolic links, so it may later name another
    one: the next release behind a link such as ``current``."""
    folder = os.environ.get("PWD", "")
    try:
        return folder if Path(folder).is_absolute() and Path(folder).samefile(".") else None
    except OSError:
        return None


def is_reexecuted() -> bool:
    """Whether this process has re-executed itself. Only the first call returns True."""
    return os.environ.pop(REEXECUTED, None) == str(os.getpid())


_is_trial = False


def is_trial() -> bool:
    """Whether this process is a trial of new code. The programs that it starts are not."""
    global _is_trial
    _is_trial = os.environ.pop(TRIAL, "") != "" or _is_trial
    return _is_trial


def _first_environment() -> dict[str, str]:
    try:
        lines = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = [os.fsdecode(line).partition("=") for line in lines if b"=" in line]
    return {name: value for name, _, value in pairs if name}
