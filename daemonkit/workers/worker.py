"""Being a worker: what a forked child does around the life that it lives.

It takes orders from its supervisor by one pipe, and reports by another. Both are plain lines:
"ask REASON" and "force REASON" one way, "WORD TICKS FAILED TEXT" the other.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from django.db import connections
from django.dispatch import Signal

from daemonkit import signals
from daemonkit.clock import Moment
from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration
from daemonkit.process import reexec
from daemonkit.process.signal_handlers import on_signals
from daemonkit.process.watcher import flush
from daemonkit.workers.labels import finish_lines, label_output

SHORT = 1.0
"""A wait of less than so many seconds is not worth a report."""


def work(
    daemon: signals.Announcer, label: str, live: Callable[[], Any], *, orders: int, reports: int
) -> NoReturn:
    """Live, in a child that was just forked, and end the process: nothing of the parent's frames,
    which are above us, may go on here. Exit codes are those of a process of its own."""
    code: int = Exit.TICK_FAILED
    try:
        for name in reexec.NOT_FOR_CHILDREN:  # systemd hears the supervisor alone
            os.environ.pop(name, None)
        reexec.handed_on.clear()
        label_output(label)
        with contextlib.suppress(AttributeError, ValueError, OSError):
            faulthandler.enable(sys.__stderr__.fileno())  # type: ignore[union-attr]  # for SIGABRT
        with on_signals(orders=orders, to_the_end=True), Reports(daemon, reports).listening():
            code = _code_of(live)
            threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter that ends does
            if code != Exit.FORCED:
                connections.close_all()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            flush()
            finish_lines()
        os._exit(code)


def _code_of(live: Callable[[], Any]) -> int:
    try:
        live()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or Exit.OK
        sys.stderr.write(f"{end.code}\n")
        return Exit.TICK_FAILED
    except BaseException:
        traceback.print_exc()
        return Exit.TICK_FAILED
    return Exit.OK


class Reports:
    """The listener that tells the supervisor how a worker fares."""

    def __init__(self, daemon: signals.Announcer, pipe: int) -> None:
        self._daemon = daemon
        self._pipe = pipe
        self._ticks = self._failed = 0
        self._idle = self._well = False
        self._next_pulse = 0.0
        self._moments: dict[Signal, Callable[..., None]] = {
            signals.daemon_ready: self.ready,
            signals.daemon_pulse: self.pulse,
            signals.daemon_waiting: self.waiting,
            signals.iteration_started: self.started,
            signals.iteration_finished: self.finished,
            signals.daemon_beat: self.beat,
            signals.database_awaited: self.awaited,
            signals.standing_by: self.standing_by,
            signals.leadership_gained: self.leading,
            signals.leadership_lost: self.deposed,
            signals.limit_reached: self.limit,
            signals.daemon_stopped: self.stopped,
        }

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        sender = type(self._daemon)
        for moment, report in self._moments.items():
            moment.connect(report, sender=sender, weak=False)
        try:
            yield
        finally:
            for moment, report in self._moments.items():
                moment.disconnect(report, sender=sender)

    def _say(self, word: str, text: str = "") -> None:
        line = f"{word} {self._ticks} {self._failed} {' '.join(text.split())[:200]}\n"
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a frozen supervisor, or none
            os.write(self._pipe, line.encode(errors="replace"))

    def ready(self, **_: Any) -> None:
        self._say("ready")

    def pulse(self, **_: Any) -> None:
        self._alive("pulse")

    def beat(self, message: str, **_: Any) -> None:
        self._alive("beat", message)

    def _alive(self, word: str, text: str = "") -> None:
        """A sign of life, but not thousands a second."""
        now = time.monotonic()
        if now >= self._next_pulse:
            self._next_pulse = now + min(1.0, self._daemon.life.pulse / 2)
            self._say(word, text)

    def waiting(self, due: Moment, **_: Any) -> None:
        if due.monotonic - time.monotonic() >= SHORT:
            self._idle = True
            self._say("idle")

    def started(self, **_: Any) -> None:
        if self._idle:
            self._idle = False
            self._say("busy")

    def finished(self, iteration: Iteration, **_: Any) -> None:
        self._ticks += 1
        if iteration.error is not None:
            self._failed += 1
        elif not self._well:
            self._well = True
            self._say("well")

    def awaited(self, error: Exception, seconds: float, **_: Any) -> None:
        self._say("awaits", f"{seconds:.3f} {one_line(error)}")

    def standing_by(self, leader: str, **_: Any) -> None:
        self._say("note", f"standing by, leader is {leader}")

    def leading(self, epoch: int, **_: Any) -> None:
        self._say("note", f"leads, epoch {epoch}")

    def deposed(self, **_: Any) -> None:
        self._say("note", "standing by")

    def limit(self, reason: str, **_: Any) -> None:
        self._say("limit", reason)

    def stopped(self, reason: str, **_: Any) -> None:
        self._say("stopped", reason)
