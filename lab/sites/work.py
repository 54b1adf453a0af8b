"""What every contestant does, on its side of the pipe. Imports nothing of daemonkit."""

from __future__ import annotations

import contextlib
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connection


def answer(work: Callable[..., Any]) -> None:
    """Do what each line of the standard input asks for, and print the result as JSON."""
    gc.freeze()  # what Django holds anyway is not to be looked through in every round
    for line in sys.stdin:
        say(work(**json.loads(line)))


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


def use(age: int | None, health: bool) -> None:
    """Go on with other settings of the connection; they hold from its next opening."""
    wanted = {"CONN_MAX_AGE": age, "CONN_HEALTH_CHECKS": health}
    if not wanted.items() <= connection.settings_dict.items():
        close()
        connection.settings_dict.update(wanted)


def close() -> None:
    connection.close()
    if "pool" in connection.settings_dict["OPTIONS"]:
        connection.close_pool()


def select_one() -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    cursor.fetchone()


def session_id() -> int:
    function = {"mysql": "CONNECTION_ID()", "postgresql": "pg_backend_pid()"}[connection.vendor]
    cursor = connection.cursor()
    cursor.execute(f"SELECT {function}")
    found: int = cursor.fetchone()[0]
    return found


class Stopwatch:
    """Seconds that a with-block took, undisturbed by the garbage collector."""

    seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        gc.collect()
        gc.disable()
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds = time.perf_counter() - started
            gc.enable()


class Losses:
    """Ticks that ask for their session's id; between two of them the benchmark takes it away."""

    def __init__(self) -> None:
        self.session: int | None = None
        self.failed = 0

    def tick(self) -> None:
        self.session = None
        try:
            self.session = session_id()
        except Exception:
            self.failed += 1
            raise

    def pause(self) -> bool:
        """Report, and wait for the loss; False if the benchmark has seen enough."""
        say({"session": self.session, "failed": self.failed})
        return bool(json.loads(sys.stdin.readline()))


class Runs:
    """Runs of jobs, and how late they were. The first second and a half is not counted: threads
    start then, and connections are made."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.late: list[float] = []
        self.begin()

    def begin(self) -> None:
        self._from = time.monotonic() + 1.5
        self._cpu: float | None = None

    def note(self, late: float) -> None:
        if self._cpu is None:
            if time.monotonic() < self._from:
                return
            self._cpu, self._from = time.process_time(), time.monotonic()
        if time.monotonic() - self._from < self.seconds - 0.02:  # or another round might begin
            self.late.append(late)

    def is_over(self) -> bool:
        return time.monotonic() - self._from > self.seconds

    def result(self) -> dict[str, float]:
        elapsed = time.monotonic() - self._from
        late = sorted(self.late) or [0.0]
        return {
            "runs": len(self.late) / self.seconds,
            "p50": late[len(late) // 2],
            "p99": late[int((len(late) - 1) * 0.99)],
            "cpu": (time.process_time() - (self._cpu or 0.0)) / elapsed,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
