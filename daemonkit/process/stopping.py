"""Stop requests, and waits that they end.

Most requests come from the watcher (``watcher.py``), but any thread may call ``Stop.ask()``.
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
from collections.abc import Callable, Collection
from contextvars import ContextVar, Token
from typing import Any


class Stop:
    """Whether a life has been asked to stop, and waits that end as soon as it has.

    A request writes one byte to a pipe and leaves it there, so that the pipe is readable for all
    current and later waits of all threads. A second pipe wakes only the loop: see ``nudge()``.
    """

    def __init__(self) -> None:
        self._reader, self._writer = pipe()
        self._nudged, self._nudger = pipe()
        self.close = weakref.finalize(
            self, close_pipe, self._reader, self._writer, self._nudged, self._nudger
        )
        self.close.atexit = False  # the watcher uses the pipes until the process is gone
        self.reason: str | None = None
        self.signum: signal.Signals | None = None
        """The signal that asked for the stop, if there was one."""
        self.forced: str | None = None
        self.reloading = False
        self.asked_at = math.inf
        self.touched = -math.inf
        self.ticks: dict[int, Tick] = {}
        self.cut_short: tuple[str, ...] = ()
        """The names of the jobs that were running when the end was forced."""

    @property
    def asked(self) -> bool:
        return self.reason is not None

    @property
    def descriptors(self) -> tuple[int, int]:
        """What is readable after a stop request, and after a nudge."""
        return self._reader, self._nudged

    def ask(self, reason: str) -> None:
        """Ask to stop, from any thread. Only the first reason counts."""
        if self.reason is None:
            self.reason, self.asked_at = reason, time.monotonic()
            os.write(self._writer, b".")

    def replace_pipes(self) -> None:
        """In a forked child: replace the pipes that it shares with its parent."""
        replace_pipe(self._reader, self._writer)
        replace_pipe(self._nudged, self._nudger)
        if self.asked:
            os.write(self._writer, b".")

    def wait(self, seconds: float) -> bool:
        """Wait; True if the time has passed, False as soon as a stop is requested."""
        return not _readable(seconds, self._reader)

    def wait_as_loop(self, seconds: float) -> bool:
        """As ``wait()``, but a nudge ends it, too, with False."""
        if not _readable(seconds, self._reader, self._nudged):
            return True
        with contextlib.suppress(BlockingIOError):
            os.read(self._nudged, 4096)
        return False

    def nudge(self) -> None:
        """End the loop's current or next wait: it checks again what is due. From any thread."""
        with contextlib.suppress(BlockingIOError):  # full: the loop will wake up anyway
            os.write(self._nudger, b".")

    def beat(self) -> str:
        """Report progress: restarts ``tick_timeout`` and, while stopping, ``stop_timeout``.

        Any thread that a tick has started may call it. ``daemonkit.Pool`` and ``asyncio.to_thread``
        pass the tick's context to their threads. A beat from a thread without that context counts
        for all running ticks, because it cannot be told which one started the thread.

        Returns the name of the job whose progress it is, or ""."""
        self.touched = time.monotonic()
        tick = current_tick.get()
        is_known = tick is not None and self.ticks.get(tick.thread) is tick
        beating = [tick] if tick is not None and is_known else list(self.ticks.values())
        for each in beating:
            each.touched, each.has_beaten = self.touched, True
        return beating[0].name if len(beating) == 1 else ""

    def timing(
        self, timeout: float | None, name: str = "", occasion: tuple[Any, Any, int] | None = None
    ) -> Tick:
        """A ``with`` block that holds a unit of work on this thread to a time limit in seconds.
        ``name`` is the name of its job, ``occasion`` its due time, its schedule and the
        number of the try."""
        return Tick(self.ticks, timeout, name, occasion)


class Tick:
    """A unit of work that is running, as the watcher sees it."""

    # In the class, because most ticks never change them, and each tick makes one of these.
    is_prolonged = False
    overdue_since: float | None = None
    cut_at = math.inf
    """When to cut its connections, once it is overdue."""
    is_cut = False
    has_beaten = False
    at_end: tuple[Callable[[BaseException | None], BaseException | None], ...] = ()
    """Called at its end, the last one first, with its error. Each returns the error of the tick."""
    awaited: Any = None  # the tasks of a Pool, and the threads that do them
    helpers: Collection[int] = ()

    _token: Token[Tick | None]

    def __init__(
        self,
        running: dict[int, Tick],
        timeout: float | None,
        name: str = "",
        occasion: tuple[Any, Any, int] | None = None,
    ) -> None:
        self.thread = threading.get_ident()
        self.timeout, self.name, self.occasion = timeout, name, occasion
        self.began = self.touched = time.monotonic()
        """When it began, and when it last reported progress."""
        self.running = running
        self._outer = running.get(self.thread)

    def error_at_end(self, error: BaseException | None) -> BaseException | None:
        """Do what is done at its end. Returns its error."""
        for each in reversed(self.at_end):
            error = each(error)
        return error

    def is_overdue(self, now: float) -> bool:
        """Whether it is past its time limit, whether or not the watcher has noticed."""
        is_late = self.timeout is not None and now - self.touched > self.timeout
        return is_late or self.overdue_since is not None

    def next_step(self, pulse: float) -> float:
        """When its time limit next requires something: to declare it overdue, to cut its
        connections, or to give it up a pulse after the cut. Infinity without a limit."""
        if self.overdue_since is not None:
            return self.cut_at + (pulse if self.is_cut else 0.0)
        return math.inf if self.timeout is None else self.touched + self.timeout

    def next_look(self, pulse: float) -> float:
        """When the watcher must next look at it: after its first pulse, or at ``next_step()``."""
        step = self.next_step(pulse)
        return step if self.is_prolonged else min(self.began + pulse, step)

    def __enter__(self) -> Tick:
        self.running[self.thread] = self
        self._token = current_tick.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        current_tick.reset(self._token)
        if self._outer is None:
            del self.running[self.thread]
        else:
            self.running[self.thread] = self._outer


current_tick: ContextVar[Tick | None] = ContextVar("tick", default=None)
"""The tick that the current thread or coroutine works for."""


def occasion_of_this_work() -> tuple[Any, Any, int] | None:
    """The due time, the schedule and the number of the try that this thread or coroutine works
    for."""
    tick = current_tick.get()
    return None if tick is None else tick.occasion


def _readable(seconds: float, *descriptors: int) -> bool:
    """Wait for one of the descriptors to be readable; False if ``seconds`` have passed.

    poll(2) takes whole milliseconds. They are rounded down, so that no tick is late, and select(2)
    waits for the rest."""
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
    """Replace a pipe by a new one that has the same two descriptors."""
    new = pipe()
    os.dup2(new[0], reader, inheritable=False)
    os.dup2(new[1], writer, inheritable=False)
    close_pipe(*new)


def close_pipe(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def milliseconds(seconds: float) -> float:
    """The milliseconds for poll(2): from 0 to those of a day."""
    return min(max(0.0, seconds), 86400.0) * 1000
