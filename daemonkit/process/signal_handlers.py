"""Who has the process's signals: taken for a life, given back after it, left by a forked child."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from daemonkit.process.origin import is_executed_anew
from daemonkit.process.signal_bytes import STOP_SIGNALS
from daemonkit.process.stopping import Stop
from daemonkit.process.watched import Orders, Unattended, Watched
from daemonkit.process.watcher import UNWINDING, Watcher

_standing: Watcher | None = None
_here = threading.local()


@contextlib.contextmanager
def on_signals(
    watched: Watched | None = None,
    orders: Orders | None = None,
    *,
    to_the_end: bool = False,
    passed_on: bool = False,
) -> Iterator[Watcher]:
    """Take SIGTERM, SIGINT and SIGHUP for the block, and mind the deadlines of what is ``watched``.

    A block inside another shares its watcher, so that a signal stops both. Off the main thread,
    where Python allows no signal handlers (autoreload, some tests), only the deadlines remain.
    Handlers, wake-up descriptor and SIGUSR1 are put back as they were. With ``orders`` it is a
    worker that lives in the block: SIGTERM, however often, only asks it, and SIGINT and SIGHUP are
    its supervisor's. With ``to_the_end`` the process ends with the block, and the signals are not
    given back: one that comes late must not change its exit code. With ``passed_on`` the signal
    that stopped the block is sent again when it has ended, to whoever had the signals before.
    """
    global _standing
    watched = watched or Unattended()
    standing = _standing
    if standing is not None and threading.current_thread() is threading.main_thread():
        outer = standing.watched
        standing.watch(watched)
        try:
            yield standing
        finally:
            if not standing.stop.forced:
                standing.watch_the_end(outer)
        return
    if to_the_end and None in (sys.stdin, sys.stdout, sys.stderr):
        from daemonkit.process.streams import open_closed_streams

        open_closed_streams()
    stop = Stop()
    watcher = Watcher(stop, watched, orders=orders)
    is_main = threading.current_thread() is threading.main_thread()
    watcher.guards_process = to_the_end = to_the_end and is_main
    try:
        with watcher.restored as restored:
            if is_main:
                _standing = watcher
                _take_signals(watcher, restored)
            if to_the_end:
                atexit.register(_ignore_signals)
            watcher.start()
            try:
                yield watcher
            finally:
                if stop.forced or to_the_end:
                    restored.pop_all()
                if stop.forced:
                    _ignore_signals()
                    watcher.end_children()
    finally:
        if to_the_end and not stop.forced:
            watcher.let_process_end()
        else:
            _end(watcher)
            if passed_on and stop.signum is not None and not stop.forced:
                signal.raise_signal(stop.signum)


def _end(watcher: Watcher) -> None:
    global _standing
    if _standing is watcher:
        _standing = None
    watcher.close()
    if not watcher.stop.forced:
        watcher.stop.close()


def _take_signals(watcher: Watcher, restored: contextlib.ExitStack) -> None:
    previous = signal.set_wakeup_fd(watcher.wakeup_descriptor, warn_on_full_buffer=False)
    restored.callback(signal.set_wakeup_fd, previous)
    for signum in STOP_SIGNALS:
        # getsignal() is None for a handler that C code installed; there is no way back to it.
        handler = signal.getsignal(signum)
        if signum is signal.SIGHUP and handler is signal.SIG_IGN:
            if not is_executed_anew():
                continue  # nohup(1)
            handler = signal.SIG_DFL
        signal.signal(signum, tell_the_watcher)
        watcher.taken[signum] = tell_the_watcher
        restored.callback(signal.signal, signum, handler or signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    # In C, so that it answers even from within a driver's call that never returns.
    with contextlib.suppress(AttributeError, ValueError, OSError):  # stderr without a descriptor
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__.fileno(), all_threads=True)  # type: ignore[union-attr]
        restored.callback(faulthandler.unregister, signal.SIGUSR1)


def tell_the_watcher(signum: int, frame: FrameType | None) -> None:
    """The handler of all signals that are taken. It raises nothing: an exception out of the blue
    leaves database wrappers in states that Django takes for healthy.

    The C-level handler has written to the wake-up descriptor long before this runs. But if a tick
    has replaced the descriptor, as asyncio does, this is the first that the watcher hears.
    """
    if _standing is not None:
        _standing.tell(signum)
        if _standing.is_leaving:
            time.sleep(UNWINDING)


def put_back() -> list[str]:
    """Take the signals again that somebody has taken from us: handlers, wake-up descriptor, mask.

    For the main thread, between ticks. Returns what had been changed, in words.
    """
    watcher = _standing
    if watcher is None or not watcher.taken:
        return []
    if threading.current_thread() is not threading.main_thread():
        return []
    changed = [f"the handler of {signum.name}" for signum in watcher.foreign_handlers()]
    if changed:
        for signum in watcher.taken:
            signal.signal(signum, tell_the_watcher)
    descriptor = watcher.wakeup_descriptor
    if signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False) != descriptor:
        changed.append("the wake-up descriptor")
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, watcher.taken)
    changed += [f"the mask of {signum.name}" for signum in watcher.taken if signum in blocked]
    return changed


def last_look() -> None:
    """Before this process executes itself anew: act upon the signals that have come. From here on
    they are blocked, and wait for the new image."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if _standing is not None:
        _standing.last_look()


# A forked child is no daemon: a signal to it must end it, and must not wake its parent's watcher by
# the descriptor that both have. Nor may one that comes before it has forgotten its parent's ways.


def hold_still() -> None:
    """Before a fork: let the watcher finish, and stop signals to this thread and the child wait."""
    if _standing is not None:
        _here.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        _here.holds = Watcher.acting.acquire(timeout=UNWINDING)
        _standing.forks()


def forget_in_child() -> None:
    """In a forked child: signals mean what they meant before ``on_signals``."""
    global _standing
    Watcher.acting, _here.holds = threading.Lock(), False
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
            Watcher.acting.release()
        if _standing is not None:
            _standing.look_again()  # in the parent: it expects Python again
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ignore_signals() -> None:
    """Let no third signal change the exit code. The interpreter, as it ends, gives every signal
    back to the system, except those that are ignored."""
    if threading.current_thread() is threading.main_thread():
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
