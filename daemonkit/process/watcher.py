"""The watcher: a thread that handles signals and enforces deadlines.

The first SIGTERM or SIGINT asks the process to stop: the tick in flight finishes. The second one,
or the end of ``stop_timeout``, forces it: the tick's connections are cut, and the process ends.
SIGHUP also asks, and the process then re-executes itself. One thread, the watcher, decides all
this, because Python runs no signal handler while the main thread is in a driver's C code. Even then
the C-level handler writes to the descriptor of ``signal.set_wakeup_fd()``."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

from daemonkit.process.deadlock import DeadlockTimer
from daemonkit.process.escalation import Escalation
from daemonkit.process.forced_end import in_thread
from daemonkit.process.signal_pipe import SignalPipe
from daemonkit.process.stopping import Stop, milliseconds
from daemonkit.process.tick_limits import TickLimits
from daemonkit.process.watched import Orders, Watched

if TYPE_CHECKING:
    from daemonkit.process.trial import Trial

END_LOOK_INTERVAL = 0.2
"""Seconds between two checks whether the interpreter has begun to shut down."""

TRIAL_LOOK_INTERVAL = 0.05
"""Seconds between two checks whether the trial of new code has ended."""

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


class Watcher:
    """Handles signals, enforces deadlines and cuts connections, in a thread of its own.

    In a worker it also follows its supervisor's ``orders``, read from a pipe that closes when the
    supervisor ends. A supervisor forks, so it runs no such thread and calls ``look()`` itself."""

    acting = threading.Lock()
    """Held while a watcher acts, and by a thread while it forks. Otherwise a child could inherit a
    lock, such as that of a log handler, that no thread in it will release."""

    def __init__(self, stop: Stop, watched: Watched, orders: Orders | None = None) -> None:
        self.stop, self.watched, self.orders = stop, watched, orders
        self.restored = contextlib.ExitStack()
        """Restores the signal handlers that were found."""
        self.taken: dict[signal.Signals, Handler] = {}
        """Our handler of each signal that we handle."""
        self._foreign: dict[signal.Signals, object] = {}
        self.pipe = SignalPipe()
        self.guards_process = False
        """Whether the process ends with what is watched, and may be ended by force."""
        self.is_leaving = False
        """Whether the process is about to end, and its main thread must do nothing more."""
        self._deadlock_timer = DeadlockTimer()
        self._tick_limits = TickLimits(stop)
        self._trial: Trial | None = None
        self._closing = False
        self._home = threading.get_ident()
        self._has_terminal = _has_terminal()
        self._is_worker = orders is not None
        self._thread: threading.Thread | None = None
        self._escalation = Escalation(stop, watched, self._call, self._hold_main_thread)

    # What is watched

    def watch(self, watched: Watched) -> None:
        """Watch ``watched`` from now on. A stop that was already requested applies to it."""
        self.watched = watched
        self._escalation.watch(watched)
        if self.stop.reloading and not watched.may_restart:
            self.stop.reloading = False
        self.look_again()

    def watch_again(self, outer: Watched) -> None:
        """Watch ``outer`` again: a life inside its block has ended."""
        self.watched = outer
        self._escalation.watch_again(outer)
        self.look_again()

    def let_process_end(self, *, now: bool = False) -> None:
        """Limit how long the interpreter may wait for threads, children and ``atexit`` functions:
        from when it begins to shut down, or with ``now`` from this call."""
        self._escalation.let_process_end(now=now)
        if self._thread is None:
            self.start()
        self.look_again()

    def end_children(self) -> None:
        """At a forced end: wait for this process's children to end, then kill the rest."""
        self._escalation.end_children()

    def replace_pipes(self) -> None:
        """In a forked child: replace the pipes that it shares with its parent."""
        self.pipe.replace()
        self.stop.replace_pipes()

    # Its thread

    def start(self) -> None:
        self._closing, self._escalation.leaves = False, True
        self._thread = threading.Thread(target=self._watch, name="daemonkit-watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, unless it is forcing the process to end."""
        if self.stop.forced:
            return
        self.end_thread()
        self.pipe.close()

    def end_thread(self) -> None:
        """End the thread. What arrives from now on, ``look()`` handles."""
        self._closing = True
        self.look_again()
        if self._thread is not None:
            self._thread.join()
        self._thread, self._escalation.leaves = None, False
        self._end_trial()

    @contextlib.contextmanager
    def without_thread(self) -> Iterator[None]:
        """Run a block that forks without the thread. It calls ``look()`` instead, which the end of
        a child also wakes. It must force the end by itself: no watcher ends this process."""
        self.end_thread()
        self._escalation.starts_children = False
        child = signal.getsignal(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, _only_wake)
        self.restored.callback(signal.signal, signal.SIGCHLD, child or signal.SIG_DFL)
        try:
            yield
        finally:
            self._escalation.starts_children = True
            if not self.stop.forced:
                self.start()

    def look_again(self) -> None:
        """Wake the watcher, so that it reads the deadlines again after one has changed."""
        self.pipe.wake()

    def _watch(self) -> None:
        while not self._closing:
            with Watcher.acting:
                limit = self.watched.tick_timeout if self.guards_process else None
                self._deadlock_timer.restart(limit and limit + self.watched.pulse)
            self.look()
        self._deadlock_timer.cancel()

    def before_fork(self) -> None:
        """Before a fork: cancel the timer of ``deadlock``, which a child could not cancel."""
        self._deadlock_timer.cancel()

    # A look

    def look(self, seconds: float = math.inf, others: Iterable[int] = ()) -> set[int]:
        """Wait for a signal, an order or a deadline, at most ``seconds``, and act on it. Returns
        the ``others`` that are readable: descriptors that end the wait, too."""
        poll = select.poll()
        ordered = self.orders.descriptor if self.orders is not None else None
        for descriptor in (self.pipe.reader, ordered, *others):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        time_limit = min(seconds, self._seconds_to_sleep())
        ready = {found for found, _ in poll.poll(milliseconds(time_limit))}
        arrived = self.pipe.arrived() if self.pipe.reader in ready else []
        with Watcher.acting:
            for signum in arrived:
                self._received(signum)
            if ordered in ready:
                self._take_orders()
            self._check(time.monotonic())
        return ready

    def _seconds_to_sleep(self) -> float:
        """Seconds until the next deadline, and few enough that a tick which starts during the sleep
        cannot pass its own deadline unnoticed."""
        watched, now = self.watched, time.monotonic()
        idle = min(watched.pulse, watched.tick_timeout or math.inf)
        if self._escalation.awaits_process_end:
            idle = min(idle, END_LOOK_INTERVAL)
        if self._trial is not None:
            idle = min(idle, TRIAL_LOOK_INTERVAL)
        deadlines = [self._escalation.next_deadline(), now + idle]
        deadlines += self._tick_limits.next_look(watched)
        return max(0.0, min(deadlines) - now)

    def _check(self, now: float) -> None:
        self._check_trial()
        self._escalation.check_deadlines(now)
        if self.stop.ticks:
            self._check_handlers()
        if reason := self._tick_limits.enforce(self.watched, now, self._call):
            self._escalation.force(reason)

    def _call(self, work: Callable[..., None], *arguments: object) -> None:
        if self._thread is None:
            work(*arguments)
        else:
            in_thread(work, *arguments)

    # Signals and orders

    def _received(self, signum: signal.Signals) -> None:
        stop, name = self.stop, signum.name
        if self._is_worker:  # its supervisor handles the others, and repeated signals
            if signum is signal.SIGTERM:
                self._ask_once(name)
        elif signum is signal.SIGHUP and not self._has_terminal and self.watched.may_restart:
            if not stop.asked and not self._begin_trial():
                self._reload()
        elif not stop.asked or stop.reloading:
            stop.reloading = False  # now it must end, and not re-execute itself
            stop.signum = signum
            self._ask(name)
        else:
            self._escalation.ask_again(name)

    def _take_orders(self) -> None:
        assert self.orders is not None
        if not self.orders.follow(self._ask_once, self._escalation.force):
            self.orders = None
            self._escalation.abandon()
            self._ask_once("the supervisor is gone")

    def _ask_once(self, name: str) -> None:
        if not self.stop.asked:
            self._ask(name)

    def _ask(self, name: str) -> None:
        self._end_trial()
        self._escalation.ask(name)

    def _reload(self) -> None:
        self.stop.reloading = True
        self._ask(signal.SIGHUP.name)

    def _begin_trial(self) -> bool:
        """Try the new code; it may have changed since an earlier trial. False if there is nothing
        to try."""
        self._end_trial()
        self._trial = self.watched.try_new_code()
        return self._trial is not None

    def _check_trial(self) -> None:
        reason = self._trial.reason_to_refuse() if self._trial is not None else None
        if reason is not None:
            self._trial = None
        if reason:
            self._call(self.watched.on_reload_failed, reason)
        elif reason is not None:
            self._reload()

    def _end_trial(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.end()

    # Signal handlers

    def foreign_handlers(self) -> dict[signal.Signals, object]:
        """The handlers that have replaced ours. From any thread."""
        found = {signum: signal.getsignal(signum) for signum in self.taken}
        return {signum: each for signum, each in found.items() if each is not self.taken[signum]}

    def _check_handlers(self) -> None:
        """Announce the handlers that a tick has replaced, each once while it is in place."""
        foreign = self.foreign_handlers()
        if news := {signum: foreign[signum] for signum in foreign.keys() - self._foreign.keys()}:
            self._call(self.watched.on_handlers_replaced, news)
        self._foreign = foreign

    def _hold_main_thread(self) -> None:
        """Hold the main thread in our signal handler. Otherwise it could end the process with
        another exit code, once the children that it waits for have ended."""
        self.is_leaving = True
        for signum in self.taken.keys() - self.foreign_handlers().keys():
            signal.pthread_kill(self._home, signum)
            return


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal. SIGHUP then means that the terminal is gone,
    and ends the process."""
    with contextlib.suppress(OSError):  # ENXIO: none
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
        return True
    return False


def _only_wake(signum: int, frame: FrameType | None) -> None:
    """Does nothing. Without a Python handler nothing is written to the wake-up descriptor."""
