"""A life as its watcher sees it; sends the signals for what the watcher reports."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from daemonkit import signals
from daemonkit.connections import cutting
from daemonkit.listeners.log import logger, plain_logging
from daemonkit.process.origin import Origin
from daemonkit.process.stopping import Stop, Tick
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.event_loop.loop import EventLoop
    from daemonkit.process.trial import Trial

ANNOUNCEMENT_TIMEOUT = 0.5
"""Seconds that an ending life waits for the watcher to announce a stop."""


class WatchedLife:
    """One life as the watcher sees it: its time limits, and what to do when something happens. Its
    methods are called from other threads.

    ``before_forced_end`` is called when the process is forced to end; it must not wait.
    """

    def __init__(
        self,
        daemon: Daemon,
        settings: Settings,
        before_forced_end: Callable[[], None],
        origin: Origin | None,
    ) -> None:
        cutting.install()
        self._origin = origin
        self.stop = Stop()
        self.pulse, self.stop_timeout = settings.pulse, settings.stop_timeout
        self.tick_timeout = settings.shortest_tick_timeout
        self.may_restart = settings.may_restart
        self.event_loop: EventLoop | None = None
        """The event loop of its async code, once there is any."""
        self._verbosity, self._log_format = settings.verbosity, settings.log_format
        self._daemon, self._before_forced_end = daemon, before_forced_end
        self.ending_since = math.inf
        self.is_over = False
        self._announced_stopping = threading.Event()
        self._announced_forced = threading.Event()

    def begin_to_end(self) -> None:
        """Note that the life has begun to close what it opened."""
        self.ending_since = time.monotonic()

    def on_asked(self, reason: str) -> None:
        moment = signals.daemon_reloading if self.stop.reloading else signals.daemon_stopping
        announce(moment, self._daemon, reason=reason)
        self._announced_stopping.set()

    def on_prolonged(self, tick: Tick) -> None:
        announce(signals.tick_prolonged, self._daemon, job=tick.name)

    def on_overdue(self, tick: Tick) -> None:
        stack = self.event_loop.stack(tick.thread) if self.event_loop is not None else ""
        frame = sys._current_frames().get(tick.thread)
        if not stack and frame is not None:
            stack = "".join(traceback.format_stack(frame))
        announce(
            signals.tick_overdue, self._daemon, seconds=tick.timeout, stack=stack, job=tick.name
        )

    def on_handlers_replaced(self, handlers: Mapping[signal.Signals, object]) -> None:
        from daemonkit.process.replaced_handlers import warn  # few ticks replace one

        warn(self._daemon.name, handlers)

    def on_forced(self, reason: str) -> None:
        self._before_forced_end()
        announce(signals.daemon_forced, self._daemon, reason=reason)
        self._announced_forced.set()

    def cancel(self, tick: Tick) -> bool:
        return self.event_loop is not None and self.event_loop.cancel(tick.thread)

    def try_new_code(self) -> Trial | None:
        if self._origin is None:
            return None
        from daemonkit.process.trial import Trial  # not for a process that is never reloaded

        announce(signals.reload_requested, self._daemon)
        return Trial(self._origin, self.stop_timeout)

    def on_reload_failed(self, reason: str) -> None:
        announce(signals.reload_failed, self._daemon, reason=reason)

    def on_left(self, reason: str) -> None:
        """Log that the process is forced to end. The life, and its log, have already ended."""
        with plain_logging(self._verbosity, self._log_format):
            logger.critical("%s forced to end: %s", self._daemon.name, reason)

    def cut(self, threads: set[int], *, for_good: bool) -> None:
        if for_good and self.event_loop is not None:
            self.event_loop.cancel_all()
        cutting.cut_connections(threads, for_good=for_good)

    def announce_end(self) -> None:
        """Announce "stopping" and "forced" before "stopped" if the watcher has not done it yet."""
        stop = self.stop
        if stop.reason is not None and not self._announced_stopping.wait(ANNOUNCEMENT_TIMEOUT):
            self.on_asked(stop.reason)
        if stop.forced is not None and not self._announced_forced.wait(ANNOUNCEMENT_TIMEOUT):
            self.on_forced(stop.forced)
