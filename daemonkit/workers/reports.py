"""The listener that reports a worker's state to its supervisor."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

from daemonkit import signals
from daemonkit.clock import Moment
from daemonkit.errors import one_line
from daemonkit.exits import Ending
from daemonkit.iteration import Iteration
from daemonkit.listeners.listener import Listener
from daemonkit.signals import Announcer
from daemonkit.status.dismissal import dismissed
from daemonkit.workers.wire import News, Report

SHORTEST_IDLE = 1.0
"""Seconds. A shorter wait is not reported."""


class Reports(Listener):
    """Writes a worker's reports to the pipe that its supervisor reads."""

    def __init__(self, daemon: Announcer, descriptor: int) -> None:
        super().__init__(daemon)
        self._descriptor = descriptor
        self._ticks = self._failed = 0
        self._is_idle = self._has_succeeded = False
        self._next_pulse = 0.0

    def moments(self) -> dict[Signal, Callable[..., None]]:
        return {
            signals.daemon_ready: self.ready,
            signals.daemon_pulse: self.pulse,
            signals.daemon_waiting: self.waiting,
            signals.iteration_started: self.started,
            signals.iteration_finished: self.finished,
            signals.daemon_beat: self.beat,
            signals.database_awaited: self.awaited,
            signals.migrations_awaited: self.migrations_awaited,
            signals.standing_by: self.standing_by,
            signals.leadership_gained: self.gained,
            signals.leadership_lost: self.lost,
            signals.limit_reached: self.limit,
            dismissed: self.dismissed,
            signals.daemon_stopped: self.stopped,
        }

    def report(self, news: News, text: str = "", seconds: float = 0.0) -> None:
        report = Report(news, self._ticks, self._failed, text, seconds)
        # The pipe is full if the supervisor is stopped, and broken if it is gone.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._descriptor, report.encode())

    def ready(self, **_: Any) -> None:
        self.report(News.READY)

    def pulse(self, **_: Any) -> None:
        self._alive(News.PULSE)

    def beat(self, message: str, **_: Any) -> None:
        self._alive(News.BEAT, message)

    def _alive(self, news: News, text: str = "") -> None:
        """Report a sign of life, at most once a second."""
        now = time.monotonic()
        if now >= self._next_pulse:
            self._next_pulse = now + min(1.0, self.daemon.life.pulse / 2)
            self.report(news, text)

    def waiting(self, due: Moment, **_: Any) -> None:
        if due.monotonic - time.monotonic() >= SHORTEST_IDLE:
            self._is_idle = True
            self.report(News.IDLE)

    def started(self, **_: Any) -> None:
        if self._is_idle:
            self._is_idle = False
            self.report(News.BUSY)

    def finished(self, iteration: Iteration, **_: Any) -> None:
        self._ticks += 1
        if iteration.error is not None:
            self._failed += 1
        elif not self._has_succeeded:
            self._has_succeeded = True
            self.report(News.FIRST_SUCCESS)

    def awaited(self, error: Exception, seconds: float, **_: Any) -> None:
        self.report(News.WAITS, one_line(error), seconds)

    def migrations_awaited(self, migrations: str, **_: Any) -> None:
        self.report(News.AWAITS_MIGRATIONS, migrations)

    def standing_by(self, leader: str, **_: Any) -> None:
        self.report(News.LEADERSHIP, f"standing by, leader is {leader}")

    def gained(self, epoch: int, **_: Any) -> None:
        self.report(News.LEADERSHIP, f"leads, epoch {epoch}")

    def lost(self, **_: Any) -> None:
        self.report(News.LEADERSHIP, "standing by")

    def limit(self, reason: str, **_: Any) -> None:
        self.report(News.LIMIT, reason)

    def stopped(self, ending: Ending, reason: str, **_: Any) -> None:
        if ending in (Ending.NOTHING_DUE, Ending.EMPTY):
            self.report(News.NOTHING_DUE, reason)
        elif ending is Ending.FINISHED:
            self.report(News.FINISHED, reason)

    def dismissed(self, reason: str, **_: Any) -> None:
        self.report(News.DISMISSED, reason)
