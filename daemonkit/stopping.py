"""Being told to stop, waiting without missing it, and insisting.

The first SIGTERM or SIGINT asks: the tick in flight finishes. The second one, or ``stop_timeout``
running out, insists: the tick's connections are cut, and the process ends. SIGHUP asks, too, and
then the process is to execute itself anew. All of it is decided in one thread, the watcher, because
Python runs no signal handler while the main thread sits in a driver's C code; the C-level handler
does write to ``signal.set_wakeup_fd`` even then.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from daemonkit.exits import Exit

UNWINDING = 2.0
"""Seconds for ``finally`` blocks and context managers, after the cut and before the end."""

ABANDONED = 0.8
"""Seconds for the tick in flight of a worker whose supervisor is gone, and then, after the cut, for
what unwinds: nobody minds it any more, and a new supervisor may be starting its successor."""

SAME_BURST = 0.05
"""A second signal that follows this fast (seconds) is the first one delivered twice, to the
process and to its group, as ``timeout(1)`` and some supervisors do."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stop:
    """Whether a life is to end, and waiting that ends as soon as it is.

    A pipe holds one byte from the moment somebody asks: every wait of every thread, present and
    to come, finds it readable. A second pipe is for the loop alone, which may be nudged.
    """

    def __init__(self) -> None:
        self._reader, self._writer = _pipe()
        self._nudged, self._nudger = _pipe()
        self.close = weakref.finalize(
            self, _close_pipe, self._reader, self._writer, self._nudged, self._nudger
        )
        self.reason: str | None = None
        self.forced: str | None = None
        self.reloading = False
        self.asked_at = math.inf
        self.touched = -math.inf
        self.ticks: dict[int, Tick] = {}

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
        _replace_pipe(self._reader, self._writer)
        _replace_pipe(self._nudged, self._nudger)
        if self.asked:
            os.write(self._writer, b".")

    def wait(self, seconds: float) -> bool:
        """Wait; True if the time passed, False at once when told to stop."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        return not poll.poll(_milliseconds(seconds))

    def wait_as_loop(self, seconds: float) -> bool:
        """Wait as the loop does: the same, but a nudge ends it, too."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.register(self._nudged, select.POLLIN)
        if not poll.poll(_milliseconds(seconds)):
            return True
        with contextlib.suppress(BlockingIOError):
            os.read(self._nudged, 4096)
        return False

    def nudge(self) -> None:
        """Have the loop look again at what is due, from any thread; also when it does not wait."""
        with contextlib.suppress(BlockingIOError):  # full: it will
            os.write(self._nudger, b".")

    def beat(self) -> None:
        """Proof of progress: ``tick_timeout`` and, while stopping, ``stop_timeout`` start anew."""
        self.touched = time.monotonic()
        if tick := self.ticks.get(threading.get_ident()):
            tick.touched = self.touched

    def timing(self, timeout: float | None) -> Tick:
        """Hold a unit of work of this thread to a time limit, in seconds: a ``with`` block."""
        return Tick(self.ticks, timeout)


class Tick:
    """A unit of work that is running, as the watcher sees it."""

    def __init__(self, running: dict[int, Tick], timeout: float | None) -> None:
        self.thread = threading.get_ident()
        self.timeout = timeout
        self.touched = time.monotonic()  # when it began or last proved progress
        self.overdue_since: float | None = None
        self._running = running
        self._outer = running.get(self.thread)

    def __enter__(self) -> Tick:
        self._running[self.thread] = self
        return self

    def __exit__(self, *_: object) -> None:
        if self._outer is None:
            del self._running[self.thread]
        else:
            self._running[self.thread] = self._outer


class Watched(Protocol):
    """What the watcher has to know of a life, and tells it. Its calls come from other threads."""

    stop_timeout: float
    tick_timeout: float | None
    pulse: float

    def on_asked(self, reason: str) -> None: ...
    def on_overdue(self, tick: Tick) -> None: ...
    def on_forced(self, reason: str) -> None: ...
    def cut(self, threads: set[int], *, for_good: bool) -> None: ...


@dataclass
class Unattended:
    """What is watched before a daemon's class is even imported: a signal is kept for it."""

    stop_timeout: float = 25.0
    tick_timeout: float | None = None
    pulse: float = 10.0

    def on_asked(self, reason: str) -> None: ...
    def on_overdue(self, tick: Tick) -> None: ...
    def on_forced(self, reason: str) -> None: ...
    def cut(self, threads: set[int], *, for_good: bool) -> None: ...


@dataclass
class Watcher:
    """The one thread of ours: it counts signals, minds the deadlines, and cuts.

    In a worker it also takes its supervisor's ``orders``, from a pipe whose end says that the
    supervisor is gone. A supervisor itself, which forks, has no thread, and looks by hand.
    """

    stop: Stop
    watched: Watched = field(default_factory=Unattended)
    restored: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Puts the signals back as they were found."""
    orders: int | None = None
    _abandoned_at: float = math.inf
    _leave_at: float = math.inf
    _closing: bool = False

    def __post_init__(self) -> None:
        self._reader, self._writer = _pipe()
        self._home = threading.get_ident()
        self._has_terminal = _has_terminal()
        self._is_worker = self.orders is not None
        self._thread: threading.Thread | None = None

    @property
    def wakeup_descriptor(self) -> int:
        return self._writer

    def part(self) -> None:
        """In a forked child, which has no such thread: tell the parent nothing by its pipes."""
        _replace_pipe(self._reader, self._writer)
        self.stop.part()

    def start(self) -> None:
        self._closing = False
        self._thread = threading.Thread(target=self._watch, name="daemonkit-watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; but not once it insists: then it is what ends the process."""
        if self.stop.forced:
            return
        self._end_thread()
        _close_pipe(self._reader, self._writer)

    def _end_thread(self) -> None:
        self._closing = True
        self.look_again()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    @contextlib.contextmanager
    def by_hand(self) -> Iterator[None]:
        """Have no thread for the block, because it forks: it calls ``look()`` instead, which the
        death of a child wakes as well. It must insist by itself: nothing ends its process."""
        self._end_thread()
        child = signal.getsignal(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, _leave_it_to_the_watcher)
        self.restored.callback(signal.signal, signal.SIGCHLD, child or signal.SIG_DFL)
        try:
            yield
        finally:
            if not self.stop.forced:
                self.start()

    def look_again(self) -> None:
        """Have the deadlines read anew, after something that the watcher sleeps by has changed."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self._writer, b"\0")

    def _watch(self) -> None:
        while not self._closing:
            self.look()

    def look(self, seconds: float = math.inf, others: Iterable[int] = ()) -> set[int]:
        """Wait for a signal, an order, a deadline or so many seconds, and act on what has come.

        Returns which of the ``others`` can be read; any of them ends the wait, too.
        """
        poll = select.poll()
        for descriptor in (self._reader, self.orders, *others):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        ready = {found for found, _ in poll.poll(_milliseconds(min(seconds, self._patience())))}
        told = os.read(self._reader, 4096) if self._reader in ready else b""
        with _acting:
            for signum in told:
                if signum in STOP_SIGNALS:
                    self._received(signal.Signals(signum))
            if self.orders in ready:
                self._take_orders()
            self._mind_the_deadlines(time.monotonic())
        return ready

    def _patience(self) -> float:
        """Seconds to sleep: to the next deadline, or so short that no tick that starts meanwhile
        can pass its own unseen."""
        watched, now = self.watched, time.monotonic()
        idle = min(watched.pulse, watched.tick_timeout or math.inf)
        deadlines = [self._stop_deadline(), self._abandoned_at, self._leave_at, now + idle]
        deadlines += [self._tick_deadline(tick) for tick in list(self.stop.ticks.values())]
        return max(0.0, min(deadlines) - now)

    def _received(self, signum: signal.Signals) -> None:
        stop, name = self.stop, signum.name
        if self._is_worker:  # its supervisor hears the others, and whether one comes twice
            if signum is signal.SIGTERM and not stop.asked:
                self._ask(name)
        elif signum is signal.SIGHUP and not self._has_terminal:
            if not stop.asked:
                stop.reloading = True
                self._ask(name)
        elif not stop.asked or stop.reloading:
            stop.reloading = False  # now it is to end, and not to begin anew
            self._ask(name)
        elif time.monotonic() - self.stop.asked_at > SAME_BURST:
            self._force(f"a second signal, {name}")

    def _take_orders(self) -> None:
        """What the supervisor says, line by line: "ask REASON" or "force REASON"."""
        assert self.orders is not None
        said = os.read(self.orders, 4096)
        if not said:
            self.orders, self._abandoned_at = None, time.monotonic() + ABANDONED
        for line in said.decode(errors="replace").splitlines() or ["ask the supervisor is gone"]:
            verb, _, reason = line.partition(" ")
            if verb == "force":
                self._force(reason)
            elif not self.stop.asked:
                self._ask(reason)

    def _ask(self, name: str) -> None:
        self.stop.ask(name)
        self.stop.reason, self.stop.asked_at = name, time.monotonic()
        self._tell(self.watched.on_asked, name)

    def _tell(self, work: Callable[..., None], *arguments: object) -> None:
        if self._thread is None:
            work(*arguments)
        else:
            _aside(work, *arguments)

    def _stop_deadline(self) -> float:
        if not self.stop.asked or self.stop.forced:
            return math.inf
        return max(self.stop.asked_at, self.stop.touched) + self.watched.stop_timeout

    def _tick_deadline(self, tick: Tick) -> float:
        if tick.overdue_since is not None:
            return tick.overdue_since + self.watched.pulse
        if tick.timeout is None:
            return math.inf
        return tick.touched + tick.timeout

    def _mind_the_deadlines(self, now: float) -> None:
        if now >= self._leave_at:
            self._leave()
        if now >= self._abandoned_at:
            self._abandoned_at = math.inf
            self._force("the supervisor is gone")
            self._leave_at = min(self._leave_at, now + ABANDONED)
        if now >= self._stop_deadline():
            self._force(f"stop_timeout of {self.watched.stop_timeout:g} s ran out")
        for tick in list(self.stop.ticks.values()):
            if now < self._tick_deadline(tick) or self.stop.forced:
                continue
            if tick.overdue_since is None:
                tick.overdue_since = now
                self._tell(self.watched.on_overdue, tick)
                self.watched.cut({tick.thread}, for_good=False)
            else:
                self._force("a tick past its tick_timeout did not return when it was cut")
                self._leave_at = now

    def _force(self, reason: str) -> None:
        if self.stop.forced:
            return
        self.stop.forced = reason
        self.stop.reloading = False
        self.stop.ask(reason)
        if self._thread is not None:
            self._leave_at = time.monotonic() + UNWINDING
        self.watched.cut({self._home, *list(self.stop.ticks)}, for_good=True)
        self._tell(self.watched.on_forced, reason)

    def _leave(self) -> None:
        _aside(flush)
        os._exit(Exit.FORCED)


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


def _replace_pipe(reader: int, writer: int) -> None:
    """Put a new pipe behind the same two descriptors."""
    pipe = _pipe()
    os.dup2(pipe[0], reader, inheritable=False)
    os.dup2(pipe[1], writer, inheritable=False)
    _close_pipe(*pipe)


def _close_pipe(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _milliseconds(seconds: float) -> float:
    """For poll(2): between none and a day of them."""
    return min(max(0.0, seconds), 86400.0) * 1000


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal. Its SIGHUP then says that the terminal is
    gone, as it did before daemons took it for "begin anew", and ends the process."""
    with contextlib.suppress(OSError):  # ENXIO: none
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
        return True
    return False


def _aside(work: Callable[..., None], *arguments: object) -> None:
    """Do it in a thread of its own and wait a moment for it.

    It may log, and the thread that we watch may hang with the log's lock in its hands.
    """
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    with contextlib.suppress(RuntimeError):  # the interpreter is ending, and starts no thread
        thread.start()
        thread.join(0.5)


def flush() -> None:
    """Write out what is buffered, before an end without the interpreter's own."""
    for handler in logging.root.handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()


_standing: Watcher | None = None
_acting = threading.Lock()
"""Held by a watcher that acts, and by a thread that forks: what the watcher has in its hands in the
middle of a log line, the child would wait for in vain."""
_here = threading.local()


@contextlib.contextmanager
def on_signals(watched: Watched | None = None, orders: int | None = None) -> Iterator[Watcher]:
    """Take SIGTERM, SIGINT and SIGHUP for the block, and mind the deadlines of what is ``watched``.

    A block inside another shares its watcher, so that a signal stops both. Off the main thread,
    where Python allows no signal handlers (autoreload, some tests), only the deadlines remain.
    Handlers, wake-up descriptor and SIGUSR1 are put back as they were. With ``orders``, a pipe's
    descriptor, it is a worker that lives in the block: SIGTERM, however often, only asks it, and
    SIGINT and SIGHUP are its supervisor's.
    """
    global _standing
    watched = watched or Unattended()
    standing = _standing
    if standing is not None and threading.current_thread() is threading.main_thread():
        outer, standing.watched = standing.watched, watched
        standing.look_again()
        try:
            yield standing
        finally:
            if not standing.stop.forced:
                standing.watched = outer
        return
    stop = Stop()
    watcher = Watcher(stop, watched, orders=orders)
    try:
        with watcher.restored as restored:
            if threading.current_thread() is threading.main_thread():
                _standing = watcher
                _take_signals(watcher.wakeup_descriptor, restored)
            watcher.start()
            try:
                yield watcher
            finally:
                if stop.forced:
                    restored.pop_all()
                    _ignore_signals()
    finally:
        if _standing is watcher:
            _standing = None
        watcher.close()
        if not stop.forced:
            stop.close()


def _take_signals(wakeup_descriptor: int, restored: contextlib.ExitStack) -> None:
    previous = signal.set_wakeup_fd(wakeup_descriptor, warn_on_full_buffer=False)
    restored.callback(signal.set_wakeup_fd, previous)
    for signum in STOP_SIGNALS:
        if signum is signal.SIGHUP and signal.getsignal(signum) is signal.SIG_IGN:
            continue  # nohup(1)
        # getsignal() is None for a handler that C code installed; there is no way back to it.
        handler = signal.getsignal(signum)
        signal.signal(signum, _leave_it_to_the_watcher)
        restored.callback(signal.signal, signum, handler or signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # see reexec.py: one may have waited
    # In C, so that it answers even from within a driver's call that never returns.
    with contextlib.suppress(AttributeError, ValueError, OSError):  # stderr without a descriptor
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__.fileno(), all_threads=True)  # type: ignore[union-attr]
        restored.callback(faulthandler.unregister, signal.SIGUSR1)


# A forked child is no daemon: a signal to it must end it, and must not wake its parent's watcher by
# the descriptor that both have. Nor may one that comes before it has forgotten its parent's ways.


def hold_still() -> None:
    """Before a fork: let the watcher finish, and stop signals to this thread and the child wait."""
    if _standing is not None:
        _here.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        _here.holds = _acting.acquire(timeout=UNWINDING)


def forget_in_child() -> None:
    """In a forked child: signals mean what they meant before ``on_signals``."""
    global _standing, _acting
    _acting, _here.holds = threading.Lock(), False
    watcher, _standing = _standing, None
    if watcher is not None:
        watcher.restored.close()
        signal.set_wakeup_fd(-1)
        watcher.part()


def let_go() -> None:
    """After a fork, in both: what has waited takes its effect."""
    mask, _here.mask = getattr(_here, "mask", None), None
    if mask is not None:
        if _here.holds:
            _here.holds = False
            _acting.release()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ignore_signals() -> None:
    """Let no third signal change the exit code. The interpreter, as it ends, gives every signal
    back to the system, except those that are ignored."""
    if threading.current_thread() is threading.main_thread():
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def _leave_it_to_the_watcher(signum: int, frame: FrameType | None) -> None:
    """Python must have a handler, or the C-level one would not write to the wake-up descriptor.

    It does nothing and raises nothing: an exception out of the blue leaves database wrappers in
    states that Django takes for healthy.
    """
