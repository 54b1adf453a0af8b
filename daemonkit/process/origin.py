"""How this process was started: the command, the environment and the folder of its first image."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

EXECUTED_ANEW = "DAEMONKIT_EXECUTED_ANEW"
"""An environment variable with the number of a process that has executed itself anew. SIGHUP is
ignored while such a process starts, so that another one does not kill it."""

TRIAL = "DAEMONKIT_TRIAL"
"""An environment variable that makes a start a trial of new code; see ``trial.py``."""

NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Environment variables by which systemd and one process speak, and no other."""


class Origin(NamedTuple):
    """What a process needs to start once more as it was started.

    ``folder`` may be a path through symbolic links, which lead elsewhere after a deployment.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str

    @classmethod
    def of_this_process(cls) -> Origin:
        """To be called before anything has changed the folder. The environment is the one with
        which the process was executed, whatever has been set or deleted since."""
        environment = _first_environment()
        environment.pop(EXECUTED_ANEW, None)
        return cls(tuple(sys.orig_argv), environment, working_folder() or os.getcwd())  # noqa: PTH109

    @property
    def program(self) -> str:
        """The path to execute: a relative one leads from ``folder``."""
        return self.command[0] if os.sep in self.command[0] else sys.executable


def working_folder() -> str | None:
    """$PWD, if it names the folder that we are in: it keeps the symbolic links of the path, and may
    name another folder tomorrow, such as the next release behind ``current``."""
    folder = os.environ.get("PWD", "")
    try:
        return folder if Path(folder).is_absolute() and Path(folder).samefile(".") else None
    except OSError:
        return None


def is_executed_anew() -> bool:
    """Whether this process has executed itself anew. Asked once: it forgets it."""
    return os.environ.pop(EXECUTED_ANEW, None) == str(os.getpid())


_is_trial = False


def is_trial() -> bool:
    """Whether this process only tries new code. Programs that it starts are no trials."""
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
