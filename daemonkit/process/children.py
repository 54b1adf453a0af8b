"""The child processes of a process. A forced end ends them, too."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LOOK_INTERVAL = 0.02
"""Seconds between two checks whether the children have ended."""


class _Status(NamedTuple):
    """A process as Linux reports it. The same pid with another start time is another process."""

    pid: int
    state: str
    parent: int
    start: int


class Children:
    """All descendants of a process when this object was made. Without /proc: none."""

    def __init__(self, pid: int) -> None:
        self._found = list(_descendants(pid))

    @property
    def pids(self) -> list[int]:
        """The pids of those that are alive."""
        return [each.pid for each in self._alive()]

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def end(self, within: float) -> None:
        """Wait up to ``within`` seconds for them to end, then kill the rest."""
        deadline = time.monotonic() + within
        while self._alive() and time.monotonic() < deadline:
            time.sleep(LOOK_INTERVAL)
        self.kill()

    def _signal(self, signum: int) -> None:
        for each in self._alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each.pid, signum)

    def _alive(self) -> list[_Status]:
        return [each for each in self._found if _is_alive(each)]


def _descendants(pid: int) -> Iterator[_Status]:
    children: dict[int, list[_Status]] = {}
    for each in _all_processes():
        children.setdefault(each.parent, []).append(each)
    pending = [pid]
    while pending:
        found = children.get(pending.pop(), [])
        yield from found
        pending += [each.pid for each in found]


def _all_processes() -> Iterator[_Status]:
    with contextlib.suppress(OSError):
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and (status := _status(int(path.name))) is not None:
                yield status


def _status(pid: int) -> _Status | None:
    """The process with this pid; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # see proc(5): the name may contain spaces
    return _Status(pid, fields[0], int(fields[1]), int(fields[19]))


def _is_alive(known: _Status) -> bool:
    status = _status(known.pid)
    return status is not None and status.start == known.start and status.state not in "ZX"
