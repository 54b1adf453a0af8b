"""A worker as its supervisor sees it: a process, two pipes, and what it has reported."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

from daemonkit.clock import NOTHING_DUE
from daemonkit.exits import Exit
from daemonkit.process.children import Children
from daemonkit.process.tick_limits import UNWIND_TIME
from daemonkit.settings.settings import Settings
from daemonkit.workers.wire import LineBuffer, News, Order, Report, Verb

GRACE = 5.0
"""Seconds by which a sign of life may be late on a busy machine."""

ABORT_TIME = 2.0
"""Seconds between SIGABRT, which prints the stacks, and SIGKILL."""


class Worker:
    """A process that runs a daemon. Times are monotonic.

    ``orders`` and ``reports`` are the supervisor's ends of two non-blocking pipes.
    """

    def __init__(self, label: str, settings: Settings, pid: int, orders: int, reports: int) -> None:
        self.label = label
        self.settings = settings
        self.pid = pid
        self.reports = reports
        self.started_at = self.heard_at = time.monotonic()
        self.is_ready = self.is_waiting = self.is_idle = False
        self.is_leaving = self.has_closed_reports = False
        self.has_succeeded = False
        self.finished = ""
        """Why it needs no successor; "" if it does."""
        self.limit = self.leadership = self.progress = self.dismissal = ""
        self.ticks = self.failed = 0
        self.children: Children | None = None
        """The child processes of a worker that was killed."""
        self._orders = orders
        self._buffer = LineBuffer()
        self._aborted_at: float | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self.started_at

    @property
    def has_begun(self) -> bool:
        """Whether it is ready, or waits for its database."""
        return self.is_ready or self.is_waiting

    # Orders

    def leave(self, reason: str) -> None:
        """Ask it to stop. Its ``stop_timeout`` counts from now."""
        self.is_leaving, self.heard_at = True, time.monotonic()
        self._order(Verb.STOP, reason)

    def force(self, reason: str) -> None:
        self._order(Verb.FORCE, reason)

    def _order(self, verb: Verb, reason: str) -> None:
        with suppress(OSError):  # it is gone, or it is stopped and its pipe is full
            os.write(self._orders, Order(verb, reason).encode())

    def end_silence(self) -> bool:
        """End a worker that has been silent for too long.

        The first call sends SIGABRT, which prints its stacks, and returns True. The second sends
        SIGKILL.
        """
        is_first = self._aborted_at is None
        self._aborted_at = time.monotonic()
        if is_first:
            self._end_children()
            self.signal(signal.SIGABRT)
            self.signal(signal.SIGCONT)  # it may be stopped
        else:
            self.kill()
        return is_first

    def kill(self) -> None:
        self._end_children()
        self.signal(signal.SIGKILL)

    def _end_children(self) -> None:
        """Send SIGTERM to the worker's child processes: it can no longer do so itself."""
        if self.children is None:
            self.children = Children(self.pid)
            self.children.terminate()

    def signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    # Reports

    def hear(self) -> Iterator[Report]:
        """Read its reports, and update this object."""
        try:
            data = os.read(self.reports, 65536)
        except BlockingIOError:
            return
        if not data:
            self.has_closed_reports = True
        for line in self._buffer.lines(data):
            report = Report.decode(line)
            self._note(report)
            yield report

    def _note(self, report: Report) -> None:
        self.heard_at = time.monotonic()
        self.ticks, self.failed = report.ticks, report.failed
        match report.news:
            case News.READY:
                self.is_ready, self.is_waiting, self.progress = True, False, ""
            case News.WAITS:
                self.is_waiting, self.progress = True, "waits for the database"
            case News.AWAITS_MIGRATIONS:
                self.is_waiting, self.progress = True, f"waits for migrations: {report.text}"
            case News.FIRST_SUCCESS:
                self.has_succeeded = True
            case News.IDLE | News.BUSY:
                self.is_idle, self.progress = report.news is News.IDLE, ""
            case News.BEAT:
                self.progress = report.text
            case News.LEADERSHIP:
                self.leadership = report.text
            case News.LIMIT:
                self.limit, self.is_idle = report.text, True
            case News.NOTHING_DUE | News.FINISHED:
                self.finished = report.text or NOTHING_DUE
            case News.DISMISSED:
                self.dismissal = report.text

    # Silence

    @property
    def silent_at(self) -> float:
        """When its silence has lasted too long.

        A worker reports nothing during a tick, and while it opens or closes.
        """
        if self.is_leaving:
            allowed: float | None = self.settings.stop_timeout + UNWIND_TIME
        else:
            allowed = 0.0 if self.is_idle else self.settings.tick_timeout
        if allowed is None:
            return math.inf
        return self.heard_at + allowed + self.settings.pulse + GRACE

    def is_silent(self, now: float) -> bool:
        return now >= self.silent_at

    @property
    def next_deadline(self) -> float:
        if self._aborted_at is not None:
            return self._aborted_at + ABORT_TIME
        return self.silent_at

    # End

    def exit_code(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # other code has reaped it
            return int(Exit.FORCED)
        return os.waitstatus_to_exitcode(status) if pid else None

    def close(self) -> None:
        os.close(self._orders)
        os.close(self.reports)
