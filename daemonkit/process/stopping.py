"""Being told to stop, and waiting without missing it.

Who tells is the watcher (``watcher.py``), or anybody: ``Stop.ask()`` may be called by any thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
import weakref
from contextvars import ContextVar, Token


class Stop:
    """Whether a life is to end, and waiting that ends as soon as it is.

    A pipe holds one byte from the moment somebody asks: every wait of every thread, present and
    to come, finds it readable. A second pipe is for the loop alone, which may be nudged.
    """

    def __init__(self) -> None:
        self._reader, self._writer = pipe()
        self._nudged, self._nudger = pipe()
        self.close = weakref.finalize(
            self, close_pipe, self._reader, self._writer, self._nudged, self._nudger
        )
        self.reason: str | None = None
        self.signum: signal.Signals | None = None
        """The signal that asked for the end, if it was one."""
        self.forced: str | None = None
        self.reloading = False
        self.asked_at = math.inf
        self.touched = -math.inf
        self.ticks: dict[int, Tick] = {}
        self.cut_short: tuple[str, ...] = ()
        """Which jobs were running when the end was forced."""

    @property
    def asked(self) -> bool:
        return self.reason is not None

    def ask(self, reason: str) -> None:
        """Ask to stop, from any thread. Only the first reason counts."""
        if self.reason is None:
            self.reason, self.asked_at = reason, time.monotonic()
            os.write(self._writer, b".")

    def part(self) -> None:
        """In a forked child: what it asks from now on, it asks itself alone."""
        replace_pipe(self._reader, self._writer)
        replace_pipe(self._nudged, self._nudger)
        if self.asked:
            os.write(self._writer, b".")

    def wait(self, seconds: float) -> bool:
        """Wait; True if the time passed, False at once when told to stop."""
        return not _readable(seconds, self._reader)

    def wait_as_loop(self, seconds: float) -> bool:
        """Wait as the loop does: the same, but a nudge ends it, too."""
        if not _readable(seconds, self._reader, self._nudged):
            return True
        with contextlib.suppress(BlockingIOError):
            os.read(self._nudged, 4096)
        return False

    def nudge(self) -> None:
        """Have the loop look again at what is due, from any thread; also when it does not wait."""
        with contextlib.suppress(BlockingIOError):  # full: it will
            os.write(self._nudger, b".")

    def beat(self) -> str:
        """Proof of progress: ``tick_timeout`` and, while stopping, ``stop_timeout`` start anew.

        May be called by any thread that a tick has started. One that has not taken over the tick's
        context, as ``daemonkit.Pool`` and ``asyncio.to_thread`` do, counts for each tick that
        runs: nobody can tell which one started it.

        Returns whose progress it is, the name of a job, or ""."""
        self.touched = time.monotonic()
        tick = _current.get()
        is_known = tick is not None and self.ticks.get(tick.thread) is tick
        beating = [tick] if tick is not None and is_known else list(self.ticks.values())
        for each in beating:
            each.touched, each.has_beaten = self.touched, True
        return beating[0].name if len(beating) == 1 else ""

    def timing(self, timeout: float | None, name: str = "") -> Tick:
        """Hold a unit of work of this thread to a time limit, in seconds: a ``with`` block. The
        name is its job's."""
        return Tick(self.ticks, timeout, name)


class Tick:
    """A unit of work that is running, as the watcher sees it."""

    # In the class, because most ticks never change them, and each tick makes one of these.
    is_prolonged = False
    overdue_since: float | None = None
    cut_at = math.inf
    """When its connections are to be cut, once it is overdue."""
    is_cut = False
    has_beaten = False

    _token: Token[Tick | None]

    def __init__(self, running: dict[int, Tick], timeout: float | None, name: str = "") -> None:
        self.thread = threading.get_ident()
        self.timeout, self.name = timeout, name
        self.began = self.touched = time.monotonic()
        """When it began, and when it last proved progress."""
        self._running = running
        self._outer = running.get(self.thread)

    def next_step(self, pulse: float) -> float:
        """When it is to be held to its time limit: to be called overdue, cut, or given up a pulse
        after that. Infinity without a limit."""
        if self.overdue_since is not None:
            return self.cut_at + (pulse if self.is_cut else 0.0)
        return math.inf if self.timeout is None else self.touched + self.timeout

    def next_look(self, pulse: float) -> float:
        """When something is to be done about it: it has lasted one pulse, or too long."""
        step = self.next_step(pulse)
        return step if self.is_prolonged else min(self.began + pulse, step)

    def __enter__(self) -> Tick:
        self._running[self.thread] = self
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
        if self._outer is None:
            del self._running[self.thread]
        else:
            self._running[self.thread] = self._outer


_current: ContextVar[Tick | None] = ContextVar("tick", default=None)
"""The one that this thread is in, or this coroutine, whose loop runs on a thread of its own."""


def _readable(seconds: float, *descriptors: int) -> bool:
    """Wait for one of them to be readable; False when so many seconds have passed.

    poll(2) counts whole milliseconds, and a wait that is rounded up is a tick that is late: the
    rest of one is slept.
    """
    until = time.monotonic() + seconds
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    if poll.poll(math.floor(milliseconds(seconds))):
        return True
    if 0 < (rest := until - time.monotonic()) < 0.001:
        select.select((), (), (), rest)
    return False


def pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


def replace_pipe(reader: int, writer: int) -> None:
    """Put a new pipe behind the same two descriptors."""
    new = pipe()
    os.dup2(new[0], reader, inheritable=False)
    os.dup2(new[1], writer, inheritable=False)
    close_pipe(*new)


def close_pipe(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def milliseconds(seconds: float) -> float:
    """For poll(2): between none and a day of them."""
    return min(max(0.0, seconds), 86400.0) * 1000
