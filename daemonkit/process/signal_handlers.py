"""Installs signal handlers for a life, restores the earlier ones after it and in a forked child."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import FrameType

from daemonkit.process.origin import is_reexecuted
from daemonkit.process.signal_pipe import STOP_SIGNALS
from daemonkit.process.stopping import Stop
from daemonkit.process.tick_limits import UNWIND_TIME
from daemonkit.process.watched import Orders, Unattended, Watched
from daemonkit.process.watcher import Watcher

_current: Watcher | None = None
_this_thread = threading.local()


def on_signals(
    watched: Watched | None = None,
    orders: Orders | None = None,
    *,
    to_the_end: bool = False,
    passed_on: bool = False,
) -> AbstractContextManager[Watcher]:
    """Handle SIGTERM, SIGINT and SIGHUP during the block, and enforce the deadlines of ``watched``.

    A block inside another one shares its watcher, so that a signal stops both. Off the main thread
    Python allows no signal handlers (autoreload, some tests), and only deadlines are enforced.
    Handlers, wake-up descriptor and SIGUSR1 are restored after the block.

    With a supervisor's ``orders`` the block runs in a worker: SIGTERM only asks it to stop, and the
    supervisor handles SIGINT and SIGHUP. With ``to_the_end`` the process ends after the block:
    handlers stay, so that a late signal cannot change the exit code. With ``passed_on`` a signal
    that stopped the block is raised again for the restored handlers."""
    watched = watched or Unattended()
    if _current is not None and _is_main_thread():
        return _inside(_current, watched)
    if to_the_end and None in (sys.stdin, sys.stdout, sys.stderr):
        from daemonkit.process.streams import open_closed_streams

        open_closed_streams()
    watcher = Watcher(Stop(), watched, orders=orders)
    if to_the_end and _is_main_thread():
        return _to_the_end(watcher)
    return _until_it_ends(watcher, passed_on=passed_on)


@contextlib.contextmanager
def _inside(watcher: Watcher, watched: Watched) -> Iterator[Watcher]:
    outer = watcher.watched
    watcher.watch(watched)
    try:
        yield watcher
    finally:
        if not watcher.stop.forced:
            watcher.watch_again(outer)


@contextlib.contextmanager
def _to_the_end(watcher: Watcher) -> Iterator[Watcher]:
    watcher.guards_process = True
    try:
        with _started(watcher) as restored:
            atexit.register(_ignore_signals)
            try:
                yield watcher
            finally:
                restored.pop_all()
    finally:
        if watcher.stop.forced:
            _end(watcher)
        else:
            watcher.let_process_end()


@contextlib.contextmanager
def _until_it_ends(watcher: Watcher, *, passed_on: bool) -> Iterator[Watcher]:
    try:
        with _started(watcher):
            yield watcher
    finally:
        _end(watcher)
        if passed_on and watcher.stop.signum is not None and not watcher.stop.forced:
            signal.raise_signal(watcher.stop.signum)


@contextlib.contextmanager
def _started(watcher: Watcher) -> Iterator[contextlib.ExitStack]:
    """Take the signals and run the watcher's thread; restore the signal handlers at the end."""
    global _current
    with watcher.restored as restored:
        if _is_main_thread():
            _current = watcher
            _take_signals(watcher, restored)
        watcher.start()
        try:
            yield restored
        finally:
            if watcher.stop.forced:
                restored.pop_all()
                _ignore_signals()
                watcher.end_children()


def _end(watcher: Watcher) -> None:
    global _current
    if _current is watcher:
        _current = None
    watcher.close()
    if not watcher.stop.forced:
        watcher.stop.close()


def _take_signals(watcher: Watcher, restored: contextlib.ExitStack) -> None:
    previous = signal.set_wakeup_fd(watcher.pipe.writer, warn_on_full_buffer=False)
    restored.callback(signal.set_wakeup_fd, previous)
    for signum in STOP_SIGNALS:
        # getsignal() is None for a handler that C code installed; there is no way back to it.
        handler = signal.getsignal(signum)
        if signum is signal.SIGHUP and handler is signal.SIG_IGN:
            if not is_reexecuted():
                continue  # nohup(1)
            handler = signal.SIG_DFL
        signal.signal(signum, notify_watcher)
        watcher.taken[signum] = notify_watcher
        restored.callback(signal.signal, signum, handler or signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    # In C, so that it works even inside a call of a driver that never returns.
    with contextlib.suppress(AttributeError, ValueError, OSError):  # stderr without a descriptor
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__.fileno(), all_threads=True)  # type: ignore[union-attr]
        restored.callback(faulthandler.unregister, signal.SIGUSR1)


def notify_watcher(signum: int, frame: FrameType | None) -> None:
    """The handler of all our signals. It never raises: an exception at an arbitrary line could
    leave a database wrapper in a state that Django takes for healthy.

    The C-level handler has already written to the wake-up descriptor. But if a tick has replaced
    the descriptor, as asyncio does, only this handler notifies the watcher."""
    if _current is not None:
        _current.pipe.notify(signum)
        if _current.is_leaving:
            time.sleep(UNWIND_TIME)


def restore_signals() -> list[str]:
    """Restore our handlers, wake-up descriptor and signal mask if a tick has changed them.

    For the main thread, between ticks. Returns what had changed, as in "the handler of SIGTERM"."""
    watcher = _current
    if watcher is None or not watcher.taken or not _is_main_thread():
        return []
    changed = [f"the handler of {signum.name}" for signum in watcher.foreign_handlers()]
    if changed:
        for signum in watcher.taken:
            signal.signal(signum, notify_watcher)
    descriptor = watcher.pipe.writer
    if signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False) != descriptor:
        changed.append("the wake-up descriptor")
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, watcher.taken)
    changed += [f"the mask of {signum.name}" for signum in watcher.taken if signum in blocked]
    return changed


def handle_pending_signals() -> None:
    """Block signals, and handle those that have arrived. Call it before this process re-executes
    itself: later signals stay pending for the new image.

    Another thread may still take a later signal. It then ends the process, and is not lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if _current is not None:
        _current.end_thread()
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        _current.look(0)


# A forked child is not a daemon: a signal must end it, and must not wake its parent's watcher
# through the descriptor that both share. This also holds for a signal that comes right after the
# fork.


def before_fork() -> None:
    """Before a fork: wait until the watcher is not acting, and block signals."""
    if _current is not None:
        _this_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        _this_thread.holds = Watcher.acting.acquire(timeout=UNWIND_TIME)
        _current.before_fork()


def after_fork_in_child() -> None:
    """In a forked child: restore the handlers from before ``on_signals()``."""
    global _current
    Watcher.acting, _this_thread.holds = threading.Lock(), False
    watcher, _current = _current, None
    if watcher is not None:
        watcher.restored.close()
        signal.set_wakeup_fd(-1)
        watcher.replace_pipes()


def after_fork() -> None:
    """After a fork, in parent and child: unblock signals; pending ones are now delivered."""
    mask, _this_thread.mask = getattr(_this_thread, "mask", None), None
    if mask is not None:
        if _this_thread.holds:
            _this_thread.holds = False
            Watcher.acting.release()
        if _current is not None:
            _current.look_again()  # in the parent: restarts the timer of deadlock.py
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ignore_signals() -> None:
    """Ignore signals, so that a late one does not change the exit code.

    The interpreter resets all handlers as it shuts down, except those of ignored signals."""
    if _is_main_thread():
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
