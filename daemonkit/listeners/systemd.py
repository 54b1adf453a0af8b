"""What systemd hears of a daemon: the protocol of sd_notify(3), spoken by a listener.

The loop knows nothing of it. The socket's address is taken out of the environment when a life
begins, so that no child speaks in our name, and not earlier: a web server of the same project,
which loads the same apps, has a use for it.
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
from daemonkit.listeners.status_line import Line
from daemonkit.process.origin import NOT_FOR_CHILDREN
from daemonkit.signals import Announcer

MESSAGE_INTERVAL = 1.0
"""Seconds between two messages that only repeat or refine: a fast loop would send thousands."""

STATUS_BURST = 5.0
"""Seconds' worth of new statuses that may be sent at once, after a time without."""

WATCHDOG_PULSES = 3
"""How many pulses may be missing before systemd kills a daemon that does not tick."""

WATCHDOG_MARGIN = 5.0
"""Seconds that systemd waits on top of a deadline of ours, which comes first."""

OPENING_TIME = 90.0
"""Seconds for one try to open the daemon, or for a new image to begin: systemd's own default."""

STOP_MARGIN = 10.0
"""Seconds beyond ``stop_timeout`` until systemd kills: we end by force in the first of them."""


def begin(daemon: Announcer) -> None:
    """Tell systemd of this life, which begins; called by ``apps.py`` where there is a socket."""
    taken = {name: os.environ.pop(name) for name in NOT_FOR_CHILDREN if name in os.environ}
    notifier = Notifier(daemon, Channel(taken["NOTIFY_SOCKET"]))
    notifier.line.starts = starts_text(daemon.name)
    notifier.listen_until_stopped()
    notifier.begin()


class Notifier(Listener):
    """The listener that tells systemd of one life."""

    def __init__(self, daemon: Announcer, channel: Channel) -> None:
        super().__init__(daemon)
        self.channel = channel
        self.line = Line()
        self._known_status = ""  # the one that systemd has
        self._owed: list[str] = []  # lines that must arrive and have not yet
        self._next_status = self._next_pulse = self._next_wait = 0.0  # not before, monotonic
        self._is_opening = True
        self._is_raised = self._is_stopping = self._is_reloading = False
        self._has_said_ready = False
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
            signals.tick_prolonged: self.prolonged,
            signals.tick_overdue: self.overdue,
            signals.standing_by: self.standing_by,
            signals.leadership_gained: self.leads,
            signals.leadership_lost: self.leads_no_more,
            signals.daemon_status: self.status,
            signals.reload_requested: self.reload_requested,
            signals.reload_failed: self.reload_failed,
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
        self.line.awaits(error, seconds)
        self._say_ready()

    def ready(self, **_: Any) -> None:
        self._is_opening = False
        self.line.doing = "is ready"
        self._next_pulse = time.monotonic() + MESSAGE_INTERVAL
        self._say_ready()

    def _say_ready(self) -> None:
        """READY=1, once: a daemon that waits for its database holds up neither boot nor restart."""
        ready = [] if self._has_said_ready else ["READY=1"]
        self._has_said_ready = True
        self._say("WATCHDOG=1", owed=[*ready, self._interval()])

    # The loop

    def pulse(self, **_: Any) -> None:
        now = time.monotonic()
        if now >= self._next_pulse:
            self._next_pulse = now + MESSAGE_INTERVAL
            if self._is_raised and not self.line.running:
                self._is_raised = False
                self._say(*self._signs_of_life(), owed=[self._interval()])
            else:
                self._say(*self._signs_of_life())

    def waiting(self, due: Moment, **_: Any) -> None:
        self.line.doing, self.line.due = "waits", due
        now = time.monotonic()
        if now >= self._next_status:
            self._say()
        elif due.monotonic - now >= MESSAGE_INTERVAL and now >= self._next_wait:
            self._next_wait = now + MESSAGE_INTERVAL  # the last message before a long wait says so
            self._say()

    def started(self, number: int, job: str = "", **_: Any) -> None:
        self.line.begun(job, number)
        if time.monotonic() >= self._next_status:
            self._say()

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
            self._say()

    def prolonged(self, job: str = "", **_: Any) -> None:
        """A tick has lasted one pulse: until it has ended, its own deadline holds. While a job
        runs, the loop goes on giving its pulse."""
        if not job:
            self._is_raised = True
            self._say(owed=[self._interval()])

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
        if time.monotonic() >= self._next_status:
            self._say()

    # The end

    def reload_requested(self, **_: Any) -> None:
        if not self._is_reloading:
            self._is_reloading = True
            self.line.failed_reload = ""
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            owed = ["RELOADING=1", f"MONOTONIC_USEC={now}", "ERRNO=0", self._interval()]
            self._say(self._time_to_stop(OPENING_TIME), owed=owed)

    def reload_failed(self, reason: str, **_: Any) -> None:
        """`daemons reload` asks systemd for the error number; the sentence is for people."""
        self._is_reloading = False
        self.line.failed_reload = f"goes on with the old code: {reason}"
        self._say(owed=["READY=1", f"ERRNO={errno.ENOEXEC}", self._interval()])

    def reloading(self, reason: str, **_: Any) -> None:
        self.line.ending = f"begins anew ({reason})"
        if self._is_reloading:
            self._say()
        else:
            self.reload_requested()

    def stopping(self, reason: str, **_: Any) -> None:
        self._is_reloading, self._is_stopping = False, True
        self.line.ending = f"stops ({reason})"
        self._say(self._time_to_stop(), owed=["STOPPING=1"])

    def forced(self, reason: str, **_: Any) -> None:
        self._is_reloading = False
        self.line.ending = f"forced to end: {reason}"
        self._say()

    def stopped(self, reason: str, **_: Any) -> None:
        self.line.running.clear()
        self.line.ending = "executes itself anew" if self._is_reloading else f"stopped: {reason}"
        if self._is_reloading:
            self._say(self._interval(), "WATCHDOG=1")
        elif self._is_stopping:
            self._say()
        else:  # it ended by itself: nobody has announced it
            self._say(owed=["STOPPING=1"])

    # Words

    def _say(self, *lines: str, owed: list[str] | None = None) -> None:
        """Send the lines, the status if it is a new one, and what must arrive."""
        self._owed += owed or []
        status = self._status()
        news = [f"STATUS={status}"] if status != self._known_status else []
        message = [*self._owed, *lines, *news]
        if not message or not self.channel.send(*message):
            return
        self._owed = [line for line in self._owed if line not in message]
        if news:
            self._known_status = status
            earliest = time.monotonic() - STATUS_BURST
            self._next_status = max(self._next_status, earliest) + MESSAGE_INTERVAL

    def _status(self) -> str:
        try:
            return str(self.line)
        except Exception:  # an error or a result whose own text fails: no reason to fall silent
            return self._known_status

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
        """How long systemd is to bear our silence: a few pulses. During a long tick, and while the
        daemon opens or begins anew, there is no pulse, and what it may take counts; 0 for ever."""
        life = self.daemon.life
        seconds = WATCHDOG_PULSES * life.pulse
        if self._is_reloading:
            seconds += life.stop_timeout + OPENING_TIME
        elif self._is_opening:
            seconds += OPENING_TIME
        elif self._is_raised:
            if life.tick_timeout is None:
                return _microseconds("WATCHDOG_USEC", 0.0)
            # We come first: we cut the tick at its deadline, and end the process a pulse later.
            seconds = max(seconds, life.tick_timeout + 2 * life.pulse)
        return _microseconds("WATCHDOG_USEC", seconds + WATCHDOG_MARGIN)


def _microseconds(name: str, seconds: float) -> str:
    return f"{name}={round(seconds * 1_000_000)}"
