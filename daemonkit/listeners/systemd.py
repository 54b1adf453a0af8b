"""The protocol of sd_notify(3), as a listener. The loop does not depend on it.

The socket's address is removed from the environment when a life begins, so that no child process
sends messages for the daemon. It is not removed earlier, because a web server of the same project,
which loads the same apps, may need it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

from daemonkit import signals
from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.listeners.listener import Listener
from daemonkit.listeners.notify_channel import Channel
from daemonkit.listeners.starts import starts_text
from daemonkit.listeners.status_line import Line, paused_text
from daemonkit.process.origin import NOT_FOR_CHILDREN
from daemonkit.signals import Announcer

MESSAGE_INTERVAL = 1.0
"""Seconds between two messages of the same kind: a fast loop would send thousands a second."""

STATUS_BURST = 5.0
"""After a quiet time, the statuses of this many seconds may be sent at once."""

WATCHDOG_PULSES = 3
"""systemd kills a waiting daemon that has missed this many pulses."""

WATCHDOG_MARGIN = 5.0
"""Seconds that systemd waits beyond a deadline of the daemon, so that the daemon acts first."""

OPENING_TIME = 90.0
"""Seconds for one try to open the daemon, or for a reloaded process to start. systemd's default."""

STOP_MARGIN = 10.0
"""Seconds beyond ``stop_timeout`` after which systemd kills. The forced end comes earlier."""


def begin(daemon: Announcer) -> None:
    """Start to notify systemd of this life. Called by ``apps.py`` if systemd has given a socket."""
    taken = {name: os.environ.pop(name) for name in NOT_FOR_CHILDREN if name in os.environ}
    notifier = Notifier(daemon, Channel(taken["NOTIFY_SOCKET"]))
    notifier.line.starts = starts_text(daemon.name)
    notifier.listen_until_stopped()
    notifier.begin()


class Notifier(Listener):
    """The listener that notifies systemd of one life."""

    def __init__(self, daemon: Announcer, channel: Channel) -> None:
        super().__init__(daemon)
        self.channel = channel
        self.line = Line()
        self._sent_status = ""  # the last status that systemd has received
        self._pending: list[str] = []  # lines that must arrive and have not yet
        self._next_status = self._next_pulse = self._next_wait = 0.0  # earliest times, monotonic
        self._is_opening = True
        self._is_raised = self._is_stopping = self._is_reloading = False
        self._has_sent_ready = False
        self._overdue: set[str] = set()

    def moments(self) -> dict[Signal, Callable[..., None]]:
        return {
            signals.database_awaited: self.awaited,
            signals.migrations_awaited: self.migrations_awaited,
            signals.daemon_ready: self.ready,
            signals.daemon_waiting: self.waiting,
            signals.daemon_pulse: self.pulse,
            signals.iteration_started: self.started,
            signals.iteration_finished: self.finished,
            signals.daemon_beat: self.beat,
            signals.tick_prolonged: self.prolonged,
            signals.tick_overdue: self.overdue,
            signals.standing_by: self.standing_by,
            signals.leadership_gained: self.leads,
            signals.leadership_lost: self.leadership_lost,
            signals.daemon_status: self.status,
            signals.daemon_paused: self.paused,
            signals.daemon_resumed: self.resumed,
            signals.reload_requested: self.reload_requested,
            signals.reload_failed: self.reload_failed,
            signals.daemon_reloading: self.reloading,
            signals.daemon_stopping: self.stopping,
            signals.daemon_forced: self.forced,
            signals.daemon_stopped: self.stopped,
        }

    def begin(self) -> None:
        self._send()

    def close(self) -> None:
        self.channel.close()

    # Opening

    def awaited(self, error: Exception, seconds: float, **_: Any) -> None:
        self.line.awaits(error, seconds)
        self._send_ready()

    def migrations_awaited(self, migrations: str, **_: Any) -> None:
        self.line.awaits_migrations(migrations)
        self._send_ready()

    def ready(self, **_: Any) -> None:
        self._is_opening = False
        self.line.doing = "is ready"
        self._next_pulse = time.monotonic() + MESSAGE_INTERVAL
        self._send_ready()

    def _send_ready(self) -> None:
        """Send READY=1 once. A daemon that waits for its database must not delay a boot."""
        ready = [] if self._has_sent_ready else ["READY=1"]
        self._has_sent_ready = True
        self._send("WATCHDOG=1", must_arrive=[*ready, self._interval()])

    # The loop

    def pulse(self, **_: Any) -> None:
        now = time.monotonic()
        if now >= self._next_pulse:
            self._next_pulse = now + MESSAGE_INTERVAL
            if self._is_raised and not self.line.running:
                self._is_raised = False
                self._send(*self._signs_of_life(), must_arrive=[self._interval()])
            else:
                self._send(*self._signs_of_life())

    def waiting(self, due: Moment, **_: Any) -> None:
        self.line.doing, self.line.due = "waits", due
        now = time.monotonic()
        if now >= self._next_status:
            self._send()
        elif due.monotonic - now >= MESSAGE_INTERVAL and now >= self._next_wait:
            self._next_wait = now + MESSAGE_INTERVAL  # the last message before a long wait says so
            self._send()

    def started(self, number: int, job: str = "", **_: Any) -> None:
        self.line.begun(job, number)
        if time.monotonic() >= self._next_status:
            self._send()

    def finished(self, iteration: Iteration, **_: Any) -> None:
        self._overdue.discard(iteration.job)
        self.line.ended(iteration)

    def beat(self, message: str, job: str = "", **_: Any) -> None:
        if message:
            self.line.messages[job] = message
        now = time.monotonic()
        if now >= self._next_pulse:
            self.pulse()
        elif message and now >= self._next_status:
            self._send()

    def prolonged(self, job: str = "", **_: Any) -> None:
        """A tick has lasted one pulse: until it ends, its own timeout sets the watchdog's interval.

        A job changes nothing, because the loop sends its pulse while a job runs.
        """
        if not job:
            self._is_raised = True
            self._send(must_arrive=[self._interval()])

    def overdue(self, seconds: float, job: str = "", **_: Any) -> None:
        self._overdue.add(job)
        self.line.messages[job] = f"past its tick_timeout of {seconds:g} s"
        self._send()

    # Many hosts, many processes

    def standing_by(self, leader: str, **_: Any) -> None:
        self.line.standing_by = f"stands by: {leader} leads"
        self._send()

    def leads(self, **_: Any) -> None:
        self.line.standing_by = ""
        self._send()

    def leadership_lost(self, reason: str, **_: Any) -> None:
        self.line.standing_by = f"no longer leads: {reason}"
        self._send()

    def paused(self, job: str, by: str, why: str, seconds: float | None, **_: Any) -> None:
        self.line.pauses[job] = paused_text(by, why, seconds)
        self._send()

    def resumed(self, job: str, **_: Any) -> None:
        self.line.pauses.pop(job, None)
        self._send()

    def status(self, text: str, **_: Any) -> None:
        self.line.override = text
        if time.monotonic() >= self._next_status:
            self._send()

    # The end

    def reload_requested(self, **_: Any) -> None:
        if not self._is_reloading:
            self._is_reloading = True
            self.line.failed_reload = ""
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            must_arrive = ["RELOADING=1", f"MONOTONIC_USEC={now}", "ERRNO=0", self._interval()]
            self._send(self._time_to_stop(OPENING_TIME), must_arrive=must_arrive)

    def reload_failed(self, reason: str, **_: Any) -> None:
        """Report the failure: an error number for `daemons reload`, and a sentence for people."""
        self._is_reloading = False
        self.line.failed_reload = f"goes on with the old code: {reason}"
        self._send(must_arrive=["READY=1", f"ERRNO={errno.ENOEXEC}", self._interval()])

    def reloading(self, reason: str, **_: Any) -> None:
        self.line.ending = f"reloads ({reason})"
        if self._is_reloading:
            self._send()
        else:
            self.reload_requested()

    def stopping(self, reason: str, **_: Any) -> None:
        self._is_reloading, self._is_stopping = False, True
        self.line.ending = f"stops ({reason})"
        self._send(self._time_to_stop(), must_arrive=["STOPPING=1"])

    def forced(self, reason: str, **_: Any) -> None:
        self._is_reloading = False
        self.line.ending = f"forced to end: {reason}"
        self._send()

    def stopped(self, reason: str, **_: Any) -> None:
        self.line.running.clear()
        self.line.ending = "re-executes itself" if self._is_reloading else f"stopped: {reason}"
        if self._is_reloading:
            self._send(self._interval(), "WATCHDOG=1")
        elif self._is_stopping:
            self._send()
        else:  # it ended by itself, so STOPPING=1 was not sent yet
            self._send(must_arrive=["STOPPING=1"])

    # Messages

    def _send(self, *lines: str, must_arrive: list[str] | None = None) -> None:
        """Send these lines and the status if it has changed.

        Lines in ``must_arrive`` are kept for the next message if they cannot be sent now.
        """
        self._pending += must_arrive or []
        status = self._status()
        news = [f"STATUS={status}"] if status != self._sent_status else []
        message = [*self._pending, *lines, *news]
        if not message or not self.channel.send(*message):
            return
        self._pending = [line for line in self._pending if line not in message]
        if news:
            self._sent_status = status
            earliest = time.monotonic() - STATUS_BURST
            self._next_status = max(self._next_status, earliest) + MESSAGE_INTERVAL

    def _status(self) -> str:
        try:
            return str(self.line)
        except Exception:  # the text of an error or a result fails: still send the other lines
            return self._sent_status

    def _signs_of_life(self) -> list[str]:
        signs = [] if self._overdue else ["WATCHDOG=1"]
        if self._is_stopping:
            signs.append(self._time_to_stop())
        elif self._is_reloading:
            signs.append(self._time_to_stop(OPENING_TIME))
        return signs

    def _time_to_stop(self, more: float = STOP_MARGIN) -> str:
        return _microseconds("EXTEND_TIMEOUT_USEC", self.daemon.life.stop_timeout + more)

    def _interval(self) -> str:
        """Return the line with the watchdog's interval.

        It is a few pulses, and longer when there is no pulse: during a long tick, and while the
        daemon opens or reloads. 0 turns the watchdog off.
        """
        life = self.daemon.life
        seconds = WATCHDOG_PULSES * life.pulse
        if self._is_reloading:
            seconds += life.stop_timeout + OPENING_TIME
        elif self._is_opening:
            seconds += OPENING_TIME
        elif self._is_raised:
            if life.tick_timeout is None:
                return _microseconds("WATCHDOG_USEC", 0.0)
            # The daemon acts first: it cuts the tick at its deadline, and ends a pulse later.
            seconds = max(seconds, life.tick_timeout + 2 * life.pulse)
        return _microseconds("WATCHDOG_USEC", seconds + WATCHDOG_MARGIN)


def _microseconds(name: str, seconds: float) -> str:
    return f"{name}={round(seconds * 1_000_000)}"
