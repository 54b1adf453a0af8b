"""The watcher: it hears the signals, minds the deadlines, and insists.

The first SIGTERM or SIGINT asks: the tick in flight finishes. The second one, or ``stop_timeout``
running out, insists: the tick's connections are cut, and the process ends. SIGHUP asks, too, and
then the process is to execute itself anew. All of it is decided in one thread, the watcher, because
Python runs no signal handler while the main thread sits in a driver's C code; the C-level handler
does write to ``signal.set_wakeup_fd`` even then.
"""

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
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from daemonkit.process import deadlock
from daemonkit.process.forced_end import ForcedEnd, aside
from daemonkit.process.signal_bytes import Arrivals, byte_of_handler
from daemonkit.process.stopping import Stop, Tick, close_pipe, milliseconds, pipe, replace_pipe
from daemonkit.process.watched import Orders, Unattended, Watched

if TYPE_CHECKING:
    from daemonkit.process.trial import Trial

UNWINDING = 2.0
"""Seconds for ``finally`` blocks and context managers: after the cut and before the end, and of a
task that was cancelled before the cut."""

ABANDONED = 0.8
"""Seconds for the tick in flight of a worker whose supervisor is gone, and then, after the cut, for
what unwinds: nobody minds it any more, and a new supervisor may be starting its successor."""

SAME_BURST = 0.05
"""A second signal that follows this fast (seconds) is the first one delivered twice, to the
process and to its group, as ``timeout(1)`` and some supervisors do."""

LATE_BURST = 1.0
"""The same while the interpreter ends. There is nothing left to be cut then, so that a storm of
signals need not change the exit code."""

END_LOOK_INTERVAL = 0.2
"""Seconds between two looks at whether the interpreter has begun to end."""

TRIAL_LOOK_INTERVAL = 0.05
"""Seconds between two looks at whether the trial of new code has ended."""

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


class Watcher:
    """The one thread of ours: it counts signals, minds the deadlines, and cuts.

    In a worker it also takes its supervisor's ``orders``, from a pipe whose end says that the
    supervisor is gone. A supervisor itself, which forks, has no thread, and looks by hand.
    """

    acting = threading.Lock()
    """Held by a watcher that acts, and by a thread that forks: what the watcher has in its hands in
    the middle of a log line, the child would wait for in vain."""

    def __init__(self, stop: Stop, watched: Watched, orders: Orders | None = None) -> None:
        self.stop, self.watched, self.orders = stop, watched, orders
        self.restored = contextlib.ExitStack()
        """Puts the signals back as they were found."""
        self.taken: dict[signal.Signals, Handler] = {}
        """The signals that are ours, and our handler of each."""
        self._foreign: dict[signal.Signals, object] = {}
        self._arrivals = Arrivals()
        self.guards_process = False
        """Whether the process is to end with what is watched, and may be ended by force."""
        self.starts_children = True
        """Whether the children of this process are the project's, and end with it."""
        self._stop_timeout = watched.stop_timeout
        self._last_life = watched
        self.is_leaving = False
        """Whether the process ends within a moment, and its main thread is to do nothing more."""
        self._expects_python = False
        self._awaits_end = False
        self._process_ends_since = math.inf
        self._trial: Trial | None = None
        self._abandoned_at = self._leave_at = math.inf
        self._closing = False
        self._reader, self._writer = pipe()
        self._home = threading.get_ident()
        self._has_terminal = _has_terminal()
        self._is_worker = orders is not None
        self._thread: threading.Thread | None = None
        self._forced_end = ForcedEnd()

    @property
    def wakeup_descriptor(self) -> int:
        return self._writer

    def watch(self, watched: Watched) -> None:
        """Watch this from now on. What has been asked before it began holds for it."""
        self.watched = self._last_life = watched
        self._stop_timeout = watched.stop_timeout
        if self.stop.reloading and not watched.may_restart:
            self.stop.reloading = False
        self.look_again()

    def watch_the_end(self, outer: Watched) -> None:
        """A life inside another block has ended: watch what was watched before."""
        self.watched = outer
        if not isinstance(outer, Unattended):
            self._last_life = outer
        self.look_again()

    def let_process_end(self, *, now: bool = False) -> None:
        """Bound what is left: threads and children that the interpreter waits for, and ``atexit``
        functions. It is bounded from when the interpreter begins to end, or from now on: a program
        that has called the command line's entry point may go on."""
        self._awaits_end = True
        if now:
            self._process_ends_since = min(self._process_ends_since, time.monotonic())
        if self._thread is None:
            self.start()
        self.look_again()

    def tell(self, signum: int) -> None:
        """Hear of a signal from its Python-level handler."""
        with contextlib.suppress(OSError):  # full: it is awake already; or closed, in a child
            os.write(self._writer, byte_of_handler(signum))

    def foreign_handlers(self) -> dict[signal.Signals, object]:
        """The handlers by which somebody has replaced ours. From any thread."""
        found = {signum: signal.getsignal(signum) for signum in self.taken}
        return {signum: each for signum, each in found.items() if each is not self.taken[signum]}

    def part(self) -> None:
        """In a forked child, which has no such thread: tell the parent nothing by its pipes."""
        replace_pipe(self._reader, self._writer)
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
        close_pipe(self._reader, self._writer)

    def last_look(self) -> None:
        """Act upon what has come, and end the thread: its process is about to become another."""
        self._end_thread()
        self.look(0)

    def _end_thread(self) -> None:
        self._closing = True
        self.look_again()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        self._end_trial()

    @contextlib.contextmanager
    def by_hand(self) -> Iterator[None]:
        """Have no thread for the block, because it forks: it calls ``look()`` instead, which the
        death of a child wakes as well. It must insist by itself: nothing ends its process."""
        self._end_thread()
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
        """Have the deadlines read anew, after something that the watcher sleeps by has changed."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self._writer, b"\0")

    def _watch(self) -> None:
        while not self._closing:
            with Watcher.acting:
                self._expect_python()
            self.look()
        self._expect_nothing()

    def _expect_python(self) -> None:
        """Have C code that keeps Python's lock for longer than a tick may take end the process."""
        limit = self.watched.tick_timeout if self.guards_process else None
        if limit is None:
            self._expect_nothing()
        else:
            self._expects_python = True
            deadlock.expect_python_within(limit + self.watched.pulse)

    def forks(self) -> None:
        """Before a fork: a child could not take back the timer of a thread that it has not got."""
        self._expect_nothing()

    def _expect_nothing(self) -> None:
        if self._expects_python:
            self._expects_python = False
            deadlock.expect_nothing()

    def look(self, seconds: float = math.inf, others: Iterable[int] = ()) -> set[int]:
        """Wait for a signal, an order, a deadline or so many seconds, and act on what has come.

        Returns which of the ``others`` can be read; any of them ends the wait, too.
        """
        poll = select.poll()
        ordered = self.orders.descriptor if self.orders is not None else None
        for descriptor in (self._reader, ordered, *others):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        ready = {found for found, _ in poll.poll(milliseconds(min(seconds, self._patience())))}
        told = os.read(self._reader, 4096) if self._reader in ready else b""
        with Watcher.acting:
            for signum in self._arrivals.of(told):
                self._received(signum)
            if ordered in ready:
                self._take_orders()
            self._mind_the_deadlines(time.monotonic())
        return ready

    def _patience(self) -> float:
        """Seconds to sleep: to the next deadline, or so short that no tick that starts meanwhile
        can pass its own unseen."""
        watched, now = self.watched, time.monotonic()
        idle = min(watched.pulse, watched.tick_timeout or math.inf)
        if self._awaits_end:
            idle = min(idle, END_LOOK_INTERVAL)
        if self._trial is not None:
            idle = min(idle, TRIAL_LOOK_INTERVAL)
        deadlines = [self._stop_deadline(), self._abandoned_at, self._leave_at, now + idle]
        deadlines += [tick.next_look(self.watched.pulse) for tick in list(self.stop.ticks.values())]
        return max(0.0, min(deadlines) - now)

    def _received(self, signum: signal.Signals) -> None:
        stop, name = self.stop, signum.name
        if self._is_worker:  # its supervisor hears the others, and whether one comes twice
            if signum is signal.SIGTERM:
                self._ask_once(name)
        elif signum is signal.SIGHUP and not self._has_terminal and self.watched.may_restart:
            if not stop.asked:
                self._end_trial()  # the code may have changed once more
                self._trial = self.watched.try_new_code()
                if self._trial is None:
                    self._reload()
        elif not stop.asked or stop.reloading:
            stop.reloading = False  # now it is to end, and not to begin anew
            stop.signum = signum
            self._ask(name)
        elif time.monotonic() - stop.asked_at > self._burst:
            self._force(f"a second signal, {name}")

    @property
    def _burst(self) -> float:
        """Seconds after the first signal in which another one is none."""
        if self._process_ends_since < math.inf:
            return LATE_BURST
        return math.inf if self._last_life.is_over else SAME_BURST

    def _reload(self) -> None:
        self.stop.reloading = True
        self._ask(signal.SIGHUP.name)

    def _end_trial(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.end()

    def _mind_the_trial(self, trial: Trial) -> None:
        reason = trial.reason_to_refuse()
        if reason is None:
            return
        self._trial = None
        if reason:
            self._tell(self.watched.on_reload_failed, reason)
        else:
            self._reload()

    def _take_orders(self) -> None:
        assert self.orders is not None
        if not self.orders.follow(self._ask_once, self._force):
            self.orders, self._abandoned_at = None, time.monotonic() + ABANDONED
            self._ask_once("the supervisor is gone")

    def _ask_once(self, name: str) -> None:
        if not self.stop.asked:
            self._ask(name)

    def _ask(self, name: str) -> None:
        self._end_trial()
        self.stop.ask(name)
        self.stop.reason, self.stop.asked_at = name, time.monotonic()
        self._tell(self.watched.on_asked, name)

    def _tell(self, work: Callable[..., None], *arguments: object) -> None:
        if self._thread is None:
            work(*arguments)
        else:
            aside(work, *arguments)

    def _stop_deadline(self) -> float:
        """When all that is to end must have ended: so long after it was told to stop, or after it
        began to end by itself."""
        stop, process_ends = self.stop, self._process_ends_since
        if stop.forced:
            return math.inf
        since = stop.asked_at if stop.asked else min(self.watched.ending_since, process_ends)
        deadline = max(since, stop.touched) + self._stop_timeout
        return deadline if process_ends == math.inf else max(deadline, process_ends + UNWINDING)

    def _mind_the_deadlines(self, now: float) -> None:
        if now >= self._leave_at:
            self._leave()
        if self._awaits_end and not threading.main_thread().is_alive():
            self._process_ends_since = min(self._process_ends_since, now)
        if now >= self._abandoned_at:
            self._abandoned_at = math.inf
            self._force("the supervisor is gone")
            self._leave_at = min(self._leave_at, now + ABANDONED)
        if self._trial is not None:
            self._mind_the_trial(self._trial)
        if now >= self._stop_deadline():
            reason = f"stop_timeout of {self._stop_timeout:g} s ran out"
            self._force(reason + self._whom_it_waits_for())
        if self.stop.ticks:
            self._mind_the_handlers()
        for tick in list(self.stop.ticks.values()):
            if now >= tick.began + self.watched.pulse and not tick.is_prolonged:
                tick.is_prolonged = True
                self._tell(self.watched.on_prolonged, tick)
            if now < tick.next_step(self.watched.pulse) or self.stop.forced:
                continue
            if tick.overdue_since is None:
                self._overdue(tick, now)
            if now < tick.cut_at:
                continue
            if not tick.is_cut:
                tick.is_cut = True
                self.watched.cut({tick.thread}, for_good=False)
            else:
                which = f"job {tick.name}" if tick.name else "a tick"
                self._force(f"{which} past its tick_timeout did not return when it was cut")

    def _overdue(self, tick: Tick, now: float) -> None:
        """Cancel the task of a tick, if it has one: its connections are cut later then."""
        tick.overdue_since = now
        self._tell(self.watched.on_overdue, tick)
        tick.cut_at = now + UNWINDING if self.watched.cancel(tick) else now

    def _whom_it_waits_for(self) -> str:
        """Which thread or child will not end, in words; "" where a tick or a worker is the one."""
        is_known = self.stop.ticks or not self.starts_children
        return "" if is_known else f" for {self._forced_end.what_stands()}"

    def _mind_the_handlers(self) -> None:
        """Tell of handlers that a tick has replaced: once, as long as they stay the same."""
        foreign = self.foreign_handlers()
        if news := {signum: foreign[signum] for signum in foreign.keys() - self._foreign.keys()}:
            self._tell(self.watched.on_handlers_replaced, news)
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
            self._leave_at = time.monotonic() + UNWINDING
        self.watched.cut({self._home, *list(self.stop.ticks)}, for_good=True)
        self._tell(self.watched.on_forced, reason)
        if self.starts_children:
            aside(self._forced_end.terminate_children)

    def end_children(self) -> None:
        """At a forced end: kill what this process has started, if SIGTERM does not end it."""
        if self.starts_children:
            self._forced_end.end_children()

    def _leave(self, reason: str = "") -> NoReturn:
        """End the process. With a reason it is one that nobody has announced."""
        self._hold_main_thread()
        if reason:
            aside(self._last_life.on_left, reason)
            self.end_children()
        self._forced_end.leave()

    def _hold_main_thread(self) -> None:
        """Keep the main thread from ending the process, with another exit code, when the children
        that it waits for end: our handler holds it."""
        self.is_leaving = True
        for signum in self.taken.keys() - self.foreign_handlers().keys():
            signal.pthread_kill(self._home, signum)
            return


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal. Its SIGHUP then says that the terminal is
    gone, as it did before daemons took it for "begin anew", and ends the process."""
    with contextlib.suppress(OSError):  # ENXIO: none
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
        return True
    return False


def _only_wake(signum: int, frame: FrameType | None) -> None:
    """Python must have a handler, or the C-level one would not write to the wake-up descriptor."""
