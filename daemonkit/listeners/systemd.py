"""What systemd hears of a daemon: the protocol of sd_notify(3), spoken by a listener.

The loop knows nothing of it. The socket's address is taken out of the environment when a life
begins, so that no child speaks in our name, and not earlier: a web server of the same project,
which loads the same apps, has a use for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

from daemonkit import signals
from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.listeners.listener import Listener
from daemonkit.listeners.status_line import Line
from daemonkit.process.reexec import NOT_FOR_CHILDREN, handed_on
from daemonkit.signals import Announcer

GAP = 1.0
"""Seconds between two messages that merely repeat or refine: a fast loop would send thousands."""

BURST = 5.0
"""Seconds' worth of new statuses that may be sent at once, after a time without."""

SLACK = 5.0
"""Seconds that systemd waits on top of a deadline of ours: it is the last line, not the first."""

OPENING = 90.0
"""Seconds for one try to open the daemon, or for a new image to begin: systemd's own default."""

STOPPED = 10.0
"""Seconds beyond ``stop_timeout`` until systemd kills: we end by force in the first of them."""


def begin(daemon: Announcer) -> None:
    """Tell systemd of this life, which begins; called by ``apps.py`` where there is a socket."""
    taken = {name: os.environ.pop(name) for name in NOT_FOR_CHILDREN if name in os.environ}
    handed_on.update(taken)
    notifier = Notifier(daemon, Channel(taken["NOTIFY_SOCKET"]))
    notifier.listen_until_stopped()
    notifier.begin()


class Channel:
    """systemd's end of the line. Sending never raises and never blocks.

    ``address`` is a path, or begins with "@": an abstract socket.
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._pid = os.getpid()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # not inherited over exec
        self._socket.setblocking(False)

    def send(self, *lines: str) -> bool:
        """Whether it was taken: not when the socket is gone or full, nor from a forked child."""
        if os.getpid() != self._pid:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return False
        return True

    def close(self) -> None:
        self._socket.close()


class Notifier(Listener):
    """The listener that tells systemd of one life."""

    def __init__(self, daemon: Announcer, channel: Channel) -> None:
        super().__init__(daemon)
        self.channel = channel
        self.line = Line()
        self._said = ""  # the status that systemd knows
        self._owed: list[str] = []  # what must arrive, and did not yet
        self._status_next = self._pulse_next = self._wait_next = 0.0  # not before, monotonic
        self._opening = self._stopping = self._reloading = False
        self._overdue: set[str] = set()

    def moments(self) -> dict[Signal, Callable[..., None]]:
        return {
            signals.database_awaited: self.awaited,
            signals.daemon_ready: self.ready,
            signals.daemon_waiting: self.waiting,
            signals.daemon_pulse: self.pulse,
            signals.iteration_started: self.started,
            signals.iteration_finished: self.finished,
            signals.daemon_beat: self.beat,
            signals.tick_overdue: self.overdue,
            signals.standing_by: self.standing_by,
            signals.leadership_gained: self.leads,
            signals.leadership_lost: self.leads_no_more,
            signals.daemon_status: self.status,
            signals.daemon_reloading: self.reloading,
            signals.daemon_stopping: self.stopping,
            signals.daemon_forced: self.forced,
            signals.daemon_stopped: self.stopped,
        }

    def begin(self) -> None:
        self._say()

    def close(self) -> None:
        self.channel.close()

    # Opening

    def awaited(self, error: Exception, seconds: float, **_: Any) -> None:
        self._opening = True
        self.line.awaits(error, seconds)
        self._say(*self._signs_of_life())

    def ready(self, **_: Any) -> None:
        self._opening = False
        self.line.doing = "is ready"
        self._pulse_next = time.monotonic() + GAP
        self._say(*self._signs_of_life(), owed=["READY=1", *self._interval()])

    # The loop

    def pulse(self, **_: Any) -> None:
        now = time.monotonic()
        if now >= self._pulse_next:
            self._pulse_next = now + GAP
            self._say(*self._signs_of_life())

    def waiting(self, due: Moment, **_: Any) -> None:
        self.line.doing, self.line.due = "waits", due
        now = time.monotonic()
        if now >= self._status_next:
            self._say()
        elif due.monotonic - now >= GAP and now >= self._wait_next:
            self._wait_next = now + GAP  # what a fast loop says last is to be the last word
            self._say()

    def started(self, number: int, job: str = "", **_: Any) -> None:
        self.line.begun(job, number)
        if time.monotonic() >= self._status_next:
            self._say()

    def finished(self, iteration: Iteration, **_: Any) -> None:
        self._overdue.discard(iteration.job)
        self.line.ended(iteration)

    def beat(self, message: str, job: str = "", **_: Any) -> None:
        if message:
            self.line.messages[job] = message
        now = time.monotonic()
        if now >= self._pulse_next:
            self.pulse()
        elif message and now >= self._status_next:
            self._say()

    def overdue(self, seconds: float, job: str = "", **_: Any) -> None:
        self._overdue.add(job)
        self.line.messages[job] = f"past its tick_timeout of {seconds:g} s"
        self._say()

    # Many hosts, many processes

    def standing_by(self, leader: str, **_: Any) -> None:
        self.line.standing_by = f"stands by: {leader} leads"
        self._say()

    def leads(self, **_: Any) -> None:
        self.line.standing_by = ""
        self._say()

    def leads_no_more(self, reason: str, **_: Any) -> None:
        self.line.standing_by = f"leads no more: {reason}"
        self._say()

    def status(self, text: str, **_: Any) -> None:
        self.line.override = text
        if time.monotonic() >= self._status_next:
            self._say()

    # The end

    def reloading(self, reason: str, **_: Any) -> None:
        self._reloading = True
        self.line.ending = f"begins anew ({reason})"
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say(*self._time_to_stop(OPENING), owed=["RELOADING=1", f"MONOTONIC_USEC={now}"])

    def stopping(self, reason: str, **_: Any) -> None:
        self._reloading, self._stopping = False, True
        self.line.ending = f"stops ({reason})"
        self._say(*self._time_to_stop(), owed=["STOPPING=1"])

    def forced(self, reason: str, **_: Any) -> None:
        self._reloading = False
        self.line.ending = f"forced to end: {reason}"
        self._say()

    def stopped(self, reason: str, **_: Any) -> None:
        self.line.running.clear()
        self.line.ending = "executes itself anew" if self._reloading else f"stopped: {reason}"
        if self._reloading:
            self._say(*self._interval(at_least=OPENING), "WATCHDOG=1")
        elif self._stopping:
            self._say()
        else:  # by itself: nobody has announced it
            self._say(owed=["STOPPING=1"])

    # Words

    def _say(self, *lines: str, owed: list[str] | None = None) -> None:
        """Send the lines, the status if it is a new one, and what must arrive."""
        self._owed += owed or []
        status = self._status()
        news = [f"STATUS={status}"] if status != self._said else []
        message = [*self._owed, *lines, *news]
        if not message or not self.channel.send(*message):
            return
        self._owed = [line for line in self._owed if line not in message]
        if news:
            self._said = status
            self._status_next = max(self._status_next, time.monotonic() - BURST) + GAP

    def _status(self) -> str:
        try:
            return str(self.line)
        except Exception:  # an error or a result whose own text fails: no reason to fall silent
            return self._said

    def _signs_of_life(self) -> list[str]:
        signs = [] if self._overdue else ["WATCHDOG=1"]
        if self._opening:
            signs.append(_microseconds("EXTEND_TIMEOUT_USEC", self.daemon.life.pulse + OPENING))
        elif self._stopping:
            signs += self._time_to_stop()
        elif self._reloading:
            signs += self._time_to_stop(OPENING)
        return signs

    def _time_to_stop(self, more: float = STOPPED) -> list[str]:
        return [_microseconds("EXTEND_TIMEOUT_USEC", self.daemon.life.stop_timeout + more)]

    def _interval(self, at_least: float = 0.0) -> list[str]:
        """How long systemd is to bear our silence. Ours is the first try at a stuck tick: we cut it
        at its ``tick_timeout`` and end the process a pulse later."""
        life = self.daemon.life
        if life.tick_timeout is None:
            return []
        seconds = life.tick_timeout + life.pulse + max(life.pulse, SLACK)
        return [_microseconds("WATCHDOG_USEC", max(seconds, at_least))]


def _microseconds(name: str, seconds: float) -> str:
    return f"{name}={round(seconds * 1_000_000)}"
