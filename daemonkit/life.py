"""One life of a daemon: one run, from the first signal handler to the exit code.

A life consists of with-blocks and waits. ``pace.Pace`` decides what is due and why it must wait;
``verdict.Verdict`` decides what an iteration means for the process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from daemonkit import signals
from daemonkit.clock import NEVER, Moment
from daemonkit.connections.holding import close_idle, kept_between_units
from daemonkit.event_loop.coroutines import Coroutines
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration, release_frames
from daemonkit.listeners.log import Log
from daemonkit.opening import open_when_available
from daemonkit.outcomes import Outcomes
from daemonkit.pace import Pace
from daemonkit.process.origin import Origin
from daemonkit.process.restoration import Restoration
from daemonkit.process.signal_handlers import handle_pending_signals, on_signals
from daemonkit.process.stopping import Stop
from daemonkit.schedules.base import Schedule
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce
from daemonkit.verdict import Verdict
from daemonkit.watched import WatchedLife

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.leading.leader import Leadership
    from daemonkit.status.steering import Steering
    from daemonkit.waking.waker import Waker
    from daemonkit.work_limits import WorkLimits


class Life:
    """One run of a daemon under its settings.

    ``tick`` is its unit of work. ``leadership`` takes part in the election, for a daemon that has
    a leader; ``steering`` writes the status and follows orders. ``before_forced_end`` is called
    from another thread when the process is forced to end; it must not wait.
    """

    def __init__(
        self,
        daemon: Daemon,
        tick: Callable[[], Any],
        settings: Settings,
        *,
        leadership: Leadership | None = None,
        steering: Steering | None = None,
        waker: Waker | None = None,
        before_forced_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.daemon, self.settings = daemon, settings
        self.leadership, self.steering, self.waker = leadership, steering, waker
        self.home: int | None = None
        """The id (``threading.get_ident()``) of the thread that runs this life, while it is
        open."""
        self.resources: Any = getattr(daemon, "resources_of", lambda life: None)(self)
        self.tick = self.entitled(tick)
        self.clock, self.schedule, self.once = settings.clock, settings.schedule, settings.once
        self.log = Log(daemon, verbosity=settings.verbosity)
        self.begun = self.clock.moment()
        self.pace = Pace(self.schedule, self.begun, [leadership] if leadership else [])
        self.pulse_at = self.begun.monotonic  # of the loop's last sign of life
        self.verdict = Verdict(
            daemon.name, settings, self.begun, by_shell=daemon.is_started_by_shell
        )
        self.work_limits: WorkLimits | None = None
        if settings.until_empty or settings.max_work:
            from daemonkit.work_limits import WorkLimits  # not for a plain loop

            self.work_limits = WorkLimits(daemon, self.schedule, until_empty=settings.until_empty,
                                          max_work=settings.max_work)  # fmt: skip
        self.last: Iteration | None = None
        """The last iteration. Its result is the value that the schedule's ``judge()`` returned."""
        self.due: Moment | None = None
        self.now: Moment | None = None
        self._origin = Origin.of_this_process() if settings.may_restart else None
        self.watched_life = WatchedLife(daemon, settings, before_forced_end, self._origin)
        self.pulse, self.stop_timeout = settings.pulse, settings.stop_timeout
        self.tick_timeout = settings.shortest_tick_timeout
        self._restoration = Restoration(daemon.name, self.begun.monotonic)
        self.coroutines = Coroutines(self, self.watched_life)
        self._outcomes = Outcomes(
            daemon, settings, self.verdict, leadership, self.coroutines.awaited
        )

    @property
    def stop(self) -> Stop:
        """The stop requests of this life, and waits that they end."""
        return self.watched_life.stop

    # The with-blocks of a life

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Handle signals and enforce deadlines during the block."""
        with on_signals(self.watched_life) as watcher:
            self.watched_life.stop = watcher.stop
            yield

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        announce(signals.daemon_started, self.daemon)
        raised = ""
        try:
            yield
        except BaseException as error:
            behind = error.__cause__ if isinstance(error, CommandError) else None
            raised = type(behind or error).__name__
            raise
        finally:
            self.watched_life.announce_end()
            self.watched_life.is_over = True
            reason = self.stop.forced or self.stop.reason or self.verdict.outcome or raised
            ending = self.verdict.kind(self.stop, has_raised=bool(raised))
            announce(signals.daemon_stopped, self.daemon, reason=reason, ending=ending)

    @contextlib.contextmanager
    def opened(self, first: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Run the checks and ``first``, and hold ``lifespan()`` open during the block. Waits while
        the database is away."""
        with kept_between_units(), ExitStack() as stack:
            self.home = threading.get_ident()
            stack.callback(self._leave_home)
            if open_when_available(self, stack, first):
                if self.resources:
                    stack.callback(self.resources.close)
                announce(signals.daemon_ready, self.daemon)
                if self.steering:
                    self.steering.await_orders()
            try:
                yield
            finally:
                self.watched_life.begin_to_end()

    def _leave_home(self) -> None:
        try:
            self.coroutines.close()
        finally:
            self.home = None

    def campaigning(self) -> AbstractContextManager[None]:
        """Take part in the election of a leader during the block, if the daemon has one."""
        return self.leadership.campaigning(self) if self.leadership else contextlib.nullcontext()

    def woken(self) -> AbstractContextManager[None]:
        """Hear the wake-ups of other processes during the block, if the daemon has ``wake_on``."""
        return self.waker.waking(self) if self.waker else contextlib.nullcontext()

    def steered(self) -> AbstractContextManager[None]:
        """Write the status and follow orders during the block, if they are on."""
        return self.steering.steering(self) if self.steering else contextlib.nullcontext()

    # What the loop asks, and its waits

    def wait_until_due(self) -> bool:
        """Wait until a tick is due, in slices of at most a pulse. False if the life is over.

        Each slice reads both clocks again, because the wall clock may be set during the wait."""
        waiting, pace, last = False, self.pace, self.last
        if last is not None and last.error is not None and not self.settings.raise_errors:
            release_frames(last.error)  # all listeners have seen it
        if last is not None and self.work_limits is not None:
            self.work_limits.note(last)
        ticks = last.number if last else 0
        now = self.now = self.clock.moment()
        if self._restoration.is_due(now.monotonic):
            self._restoration.restore(now.monotonic)
            self.coroutines.serve_tasks()
        while self.goes_on(ticks, now):
            self.pulsed()
            # Asked before what is due: when the reason ends, the schedule may start again.
            reason = pace.reason_to_wait(now) if pace.reasons else ""
            due = self.due = pace.due(last, now)
            if due == NEVER:
                self.verdict.note_nothing_due()
                return False
            seconds = min(due.monotonic, self.verdict.refusal_proven_at) - now.monotonic
            if seconds <= 0 and not reason:
                pace.starts(due, last)
                return True
            if not waiting:
                waiting = True
                close_idle(max(seconds, 0.0))
                announce(signals.daemon_waiting, self.daemon, due=due)
            seconds = self.pulse if reason else seconds
            self.wait(min(seconds, self.verdict.seconds_left(now)))
            now = self.now = self.clock.moment()
        self.await_replacement()
        return False

    def goes_on(self, ticks: int, now: Moment) -> bool:
        """Whether another tick may follow the first ``ticks`` ticks."""
        if self.stop.asked or self.verdict.is_over:
            return False
        held = _resident() if self.settings.max_memory else 0
        limit = self.verdict.limit(ticks, now, held)
        if limit is None and self.work_limits is not None:
            limit = self.work_limits.reached()
        if limit:
            self.verdict.outcome, self.verdict.limit_reached = limit.text, limit
        return limit is None

    def wait(self, seconds: float) -> None:
        """Wait at most a pulse; a stop request or a nudge ends the wait."""
        self._restoration.restore(self.clock.moment().monotonic)
        self.clock.wait(min(seconds, self.pulse), self.stop.wait_as_loop)
        self.coroutines.serve_tasks()

    def nudge(self) -> None:
        """End the loop's wait, so that it checks again what is due. From any thread."""
        self.stop.nudge()

    def bring_forward(self, *, restart: bool = False, patient: bool = False) -> None:
        """Make a tick due now, and end the loop's wait; see ``Pace.bring_forward``. From any
        thread."""
        self.pace.bring_forward(self.clock.moment(), restart=restart, patient=patient)
        self.nudge()

    def await_replacement(self) -> None:
        """In a worker that has reached a limit, wait until its supervisor stops it."""
        reached = self.verdict.limit_reached
        if self.settings.supervised and reached and reached.name != "until_empty":
            from daemonkit.replacement import await_replacement  # not for a plain loop

            await_replacement(self)

    def pulsed(self) -> None:
        """Announce a pulse, unless a tick is overdue: a stuck daemon must look stuck."""
        running = self.stop.ticks  # between the ticks of a loop it is empty
        if running and any(tick.overdue_since is not None for tick in list(running.values())):
            return
        self.pulse_at = time.monotonic()
        if signals.daemon_pulse.receivers:
            announce(signals.daemon_pulse, self.daemon)

    # A unit of work: begin(), then the work, then finish()

    def entitled(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """The unit of work; with a leader, one that is cut when this process no longer leads."""
        if self.resources:
            work = self.resources.around(work)
        if self.leadership is None:
            return work
        return self.leadership.entitled(lambda: self.coroutines.awaited(work()))

    def begin(self, number: int, due: Moment, job: str = "") -> None:
        if signals.iteration_started.receivers:
            announce(signals.iteration_started, self.daemon, number=number, due=due, job=job)

    def judge(self, result: Any, schedule: Schedule) -> tuple[Any, Any]:
        """A tick's result, awaited if it is a coroutine, and what its schedule keeps of it. Called
        inside the unit of work: an error that it raises fails the tick."""
        result = self.coroutines.awaited(result)
        return result, schedule.judge(result)

    def finish(
        self,
        iteration: Iteration,
        error: BaseException | None,
        last: Iteration | None,
        *,
        cut: bool,
    ) -> Iteration:
        """Note the outcome of a tick or a job; see ``Outcomes.note()``."""
        return self._outcomes.note(iteration, error, last, self.stop, cut=cut)

    # The end

    def ask_to_stop(self, reason: str) -> None:
        """Stop this life, as a signal would. From any thread."""
        self.stop.ask(reason)
        self.watched_life.on_asked(reason)
        self.nudge()

    def give_up(self, code: Exit, what: str) -> None:
        """End this life before its next tick, with this exit code. From any thread."""
        self.verdict.give_up(code, what)
        self.nudge()

    def conclude(self) -> None:
        """Raise the error or exit code that ends the process, unless it is 0; or re-execute it."""
        if self.stop.reloading:
            handle_pending_signals()  # one of them may end it after all
        if self.stop.forced:  # whatever the tick ended with
            raise SystemExit(Exit.FORCED)
        if self.stop.reloading and self._origin is not None:
            from daemonkit.process.reexec import reexecute  # once in a process's life, if ever

            reexecute(self.daemon.name, self._origin)
        if ending := self.verdict.ending():
            raise ending


def _resident() -> int:
    from daemonkit.process.memory import resident  # not for a loop without max_memory

    return resident()
