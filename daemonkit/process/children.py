"""The processes that a process has started: ended with it when it is ended by force."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LOOK_INTERVAL = 0.02
"""Seconds between two looks at whether they have ended."""


class _Status(NamedTuple):
    """What Linux says of a process. The same pid with another start is another process."""

    pid: int
    state: str
    parent: int
    start: int


class Children:
    """All descendants of a process, as they were when this object was made. Without /proc: none."""

    def __init__(self, pid: int) -> None:
        self._found = list(_descendants(pid))

    @property
    def pids(self) -> list[int]:
        """The numbers of those that live."""
        return [each.pid for each in self._alive()]

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def end(self, within: float) -> None:
        """Wait for so many seconds until they have ended, and kill those that have not."""
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
    """None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # see proc(5): its name may hold spaces
    return _Status(pid, fields[0], int(fields[1]), int(fields[19]))


def _is_alive(known: _Status) -> bool:
    status = _status(known.pid)
    return status is not None and status.start == known.start and status.state not in "ZX"
