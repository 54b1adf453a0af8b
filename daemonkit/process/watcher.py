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
from typing import Any, NoReturn, TypeAlias

from daemonkit.process.deadlock import DeadlockTimer
from daemonkit.process.forced_end import ForcedEnd, in_thread
from daemonkit.process.new_code import LOOK_INTERVAL, NewCode
from daemonkit.process.signal_pipe import SignalPipe
from daemonkit.process.stopping import Stop, milliseconds
from daemonkit.process.tick_limits import UNWIND_TIME, TickLimits
from daemonkit.process.watched import Orders, Unattended, Watched

ABANDONED_TIME = 0.8
"""Seconds that a worker's tick in flight may take once the supervisor is gone, and seconds to
unwind after its cut. They are few, because a new supervisor may already be starting a
replacement."""

DUPLICATE_TIME = 0.05
"""Seconds after the first signal in which a second one does not count: ``timeout(1)`` and some
supervisors signal a process and then its group, which delivers the same signal twice."""

DUPLICATE_TIME_AT_EXIT = 1.0
"""The same while the interpreter shuts down. No tick is left to cut then, so repeated signals
should not change the exit code."""

END_LOOK_INTERVAL = 0.2
"""Seconds between two checks whether the interpreter has begun to shut down."""

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
        self.starts_children = True
        """Whether the children of this process belong to the project's code, and end with it."""
        self._stop_timeout = watched.stop_timeout
        self._last_life = watched
        self.is_leaving = False
        """Whether the process is about to end, and its main thread must do nothing more."""
        self._deadlock_timer = DeadlockTimer()
        self._tick_limits = TickLimits(stop)
        self._awaits_end = False
        self._process_ends_since = math.inf
        self._new_code = NewCode()
        self._abandoned_at = self._leave_at = math.inf
        self._closing = False
        self._home = threading.get_ident()
        self._has_terminal = _has_terminal()
        self._is_worker = orders is not None
        self._thread: threading.Thread | None = None
        self._forced_end = ForcedEnd()

    def watch(self, watched: Watched) -> None:
        """Watch ``watched`` from now on. A stop that was already requested applies to it."""
        self.watched = self._last_life = watched
        self._stop_timeout = watched.stop_timeout
        if self.stop.reloading and not watched.may_restart:
            self.stop.reloading = False
        self.look_again()

    def watch_again(self, outer: Watched) -> None:
        """Watch ``outer`` again: a life inside its block has ended."""
        self.watched = outer
        if not isinstance(outer, Unattended):
            self._last_life = outer
        self.look_again()

    def let_process_end(self, *, now: bool = False) -> None:
        """Limit how long the interpreter may wait for threads, children and ``atexit`` functions:
        from when it begins to shut down, or with ``now`` from this call."""
        self._awaits_end = True
        if now:
            self._process_ends_since = min(self._process_ends_since, time.monotonic())
        if self._thread is None:
            self.start()
        self.look_again()

    def foreign_handlers(self) -> dict[signal.Signals, object]:
        """The handlers that have replaced ours. From any thread."""
        found = {signum: signal.getsignal(signum) for signum in self.taken}
        return {signum: each for signum, each in found.items() if each is not self.taken[signum]}

    def replace_pipes(self) -> None:
        """In a forked child: replace the pipes that it shares with its parent."""
        self.pipe.replace()
        self.stop.replace_pipes()

    def start(self) -> None:
        self._closing = False
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
        self._thread = None
        self._new_code.end_trial()

    @contextlib.contextmanager
    def without_thread(self) -> Iterator[None]:
        """Run a block that forks without the thread. It calls ``look()`` instead, which the end of
        a child also wakes. It must force the end by itself: no watcher ends this process."""
        self.end_thread()
        self.starts_children = False
        child = signal.getsignal(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, _only_wake)
        self.restored.callback(signal.signal, signal.SIGCHLD, child or signal.SIG_DFL)
        try:
            yield
        finally:
            self.starts_children = True
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
            self._check_deadlines(time.monotonic())
        return ready

    def _seconds_to_sleep(self) -> float:
        """Seconds until the next deadline, and few enough that a tick which starts during the sleep
        cannot pass its own deadline unnoticed."""
        watched, now = self.watched, time.monotonic()
        idle = min(watched.pulse, watched.tick_timeout or math.inf)
        if self._awaits_end:
            idle = min(idle, END_LOOK_INTERVAL)
        if self._new_code.is_tried:
            idle = min(idle, LOOK_INTERVAL)
        deadlines = [self._stop_deadline(), self._abandoned_at, self._leave_at, now + idle]
        deadlines += self._tick_limits.next_look(watched)
        return max(0.0, min(deadlines) - now)

    def _received(self, signum: signal.Signals) -> None:
        stop, name = self.stop, signum.name
        if self._is_worker:  # its supervisor handles the others, and repeated signals
            if signum is signal.SIGTERM:
                self._ask_once(name)
        elif signum is signal.SIGHUP and not self._has_terminal and self.watched.may_restart:
            if not stop.asked and not self._new_code.begin_trial(self.watched):
                self._reload()
        elif not stop.asked or stop.reloading:
            stop.reloading = False  # now it must end, and not re-execute itself
            stop.signum = signum
            self._ask(name)
        elif time.monotonic() - stop.asked_at > self._duplicate_time:
            self._force(f"a second signal, {name}")

    @property
    def _duplicate_time(self) -> float:
        """Seconds after the first signal in which another one does not count."""
        if self._process_ends_since < math.inf:
            return DUPLICATE_TIME_AT_EXIT
        return math.inf if self._last_life.is_over else DUPLICATE_TIME

    def _reload(self) -> None:
        self.stop.reloading = True
        self._ask(signal.SIGHUP.name)

    def _check_trial(self) -> None:
        reason = self._new_code.outcome()
        if reason:
            self._call(self.watched.on_reload_failed, reason)
        elif reason is not None:
            self._reload()

    def _take_orders(self) -> None:
        assert self.orders is not None
        if not self.orders.follow(self._ask_once, self._force):
            self.orders, self._abandoned_at = None, time.monotonic() + ABANDONED_TIME
            self._ask_once("the supervisor is gone")

    def _ask_once(self, name: str) -> None:
        if not self.stop.asked:
            self._ask(name)

    def _ask(self, name: str) -> None:
        self._new_code.end_trial()
        self.stop.ask(name)
        self.stop.reason, self.stop.asked_at = name, time.monotonic()
        self._call(self.watched.on_asked, name)

    def _call(self, work: Callable[..., None], *arguments: object) -> None:
        if self._thread is None:
            work(*arguments)
        else:
            in_thread(work, *arguments)

    def _stop_deadline(self) -> float:
        """When the end is forced: ``stop_timeout`` after the stop was requested, after the last
        beat, or after the life began to end by itself."""
        stop, process_ends = self.stop, self._process_ends_since
        if stop.forced:
            return math.inf
        since = stop.asked_at if stop.asked else min(self.watched.ending_since, process_ends)
        deadline = max(since, stop.touched) + self._stop_timeout
        return deadline if process_ends == math.inf else max(deadline, process_ends + UNWIND_TIME)

    def _check_deadlines(self, now: float) -> None:
        if now >= self._leave_at:
            self._leave()
        if self._awaits_end and not threading.main_thread().is_alive():
            self._process_ends_since = min(self._process_ends_since, now)
        if now >= self._abandoned_at:
            self._abandoned_at = math.inf
            self._force("the supervisor is gone")
            self._leave_at = min(self._leave_at, now + ABANDONED_TIME)
        self._check_trial()
        if now >= self._stop_deadline():
            reason = f"stop_timeout of {self._stop_timeout:g} s ran out"
            self._force(reason + self._blockers())
        if self.stop.ticks:
            self._check_handlers()
        if reason := self._tick_limits.enforce(self.watched, now, self._call):
            self._force(reason)

    def _blockers(self) -> str:
        """Says which thread or child does not end; "" if it is a tick or a worker."""
        is_known = self.stop.ticks or not self.starts_children
        return "" if is_known else f" for {self._forced_end.blockers()}"

    def _check_handlers(self) -> None:
        """Announce the handlers that a tick has replaced, each once while it is in place."""
        foreign = self.foreign_handlers()
        if news := {signum: foreign[signum] for signum in foreign.keys() - self._foreign.keys()}:
            self._call(self.watched.on_handlers_replaced, news)
        self._foreign = foreign

    def _force(self, reason: str) -> None:
        if self.stop.forced:
            return
        if self._process_ends_since < math.inf:
            self._leave(reason)
        self.stop.forced = reason
        self.stop.reloading = False
        running = list(self.stop.ticks.values())
        self.stop.cut_short = tuple(sorted(tick.name for tick in running if tick.name))
        self.stop.ask(reason)
        if self._thread is not None:
            self._leave_at = time.monotonic() + UNWIND_TIME
        self.watched.cut({self._home, *list(self.stop.ticks)}, for_good=True)
        self._call(self.watched.on_forced, reason)
        if self.starts_children:
            in_thread(self._forced_end.terminate_children)

    def end_children(self) -> None:
        """At a forced end: wait for this process's children to end, then kill the rest."""
        if self.starts_children:
            self._forced_end.end_children()

    def _leave(self, reason: str = "") -> NoReturn:
        """End the process. A ``reason`` that was not announced yet is logged first."""
        self._hold_main_thread()
        if reason:
            in_thread(self._last_life.on_left, reason)
            self.end_children()
        self._forced_end.leave()

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
