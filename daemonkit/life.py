"""One life of a daemon: what holds for one run, from the first signal handler to the exit code."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from daemonkit import signals
from daemonkit.clock import NEVER, NOTHING_DUE, Moment
from daemonkit.connections.thread import cut_connections
from daemonkit.connections.units import close_idle, fresh_connections, kept_between_units
from daemonkit.errors import Problem, classify, one_line
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration
from daemonkit.listeners.log import Log, logger
from daemonkit.process import reexec
from daemonkit.process.memory import resident, size_text
from daemonkit.process.signal_handlers import last_look, on_signals
from daemonkit.process.stopping import Stop, Tick
from daemonkit.schedules.backoff import PROVEN_AFTER, after_failure, next_due
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce

if TYPE_CHECKING:
    from daemonkit.command import BaseDaemonCommand
    from daemonkit.leading.leader import Leadership

_WAITED_FOR = (Problem.UNREACHABLE, Problem.LOST, Problem.MISCONFIGURED, Problem.READ_ONLY)


class Life:
    """A daemon's run under its settings, and what the watcher watches.

    Raises ``CommandError`` (exit code 2) for an option or a setting that makes no sense.
    """

    def __init__(
        self, daemon: BaseDaemonCommand, tick: Callable[[], Any], options: Mapping[str, Any]
    ) -> None:
        self.daemon = daemon
        self.tick = tick
        self.settings = settings = Settings(daemon, options)
        self.schedule, self.clock = settings.schedule, settings.clock
        self.pulse = settings.pulse
        self.stop_timeout, self.tick_timeout = settings.stop_timeout, settings.tick_timeout
        self.log = Log(daemon, verbosity=options.get("verbosity", 1))
        self.stop = Stop()
        self.begun = self.clock.moment()
        self.due: Moment | None = None
        self.now: Moment | None = None
        self.outcome = ""
        self.since = self.begun  # from when on the schedule counts
        self.leadership: Leadership | None = None
        self.last_words: Callable[[], None] = lambda: None
        """Called when the process is forced to end, from another thread; it must not wait."""
        self._end: CommandError | None = None
        self._last: Iteration | None = None
        self._announced_stopping = threading.Event()
        self._announced_forced = threading.Event()
        self._ever_well = False
        self._refused_since: float | None = None
        self._folder = reexec.working_folder()

    # The with-blocks of a life

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Under the watcher: signals and deadlines hold from here."""
        with on_signals(self) as watcher:
            self.stop = watcher.stop
            yield

    def _told(self) -> None:
        """Have "stopping" and "forced" announced before "stopped": the watcher may be about to."""
        if self.stop.reason is not None and not self._announced_stopping.wait(0.5):
            self.on_asked(self.stop.reason)
        if self.stop.forced is not None and not self._announced_forced.wait(0.5):
            self.on_forced(self.stop.forced)

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
            self._told()
            self.stop.over = True
            reason = self.stop.reason or self.outcome or raised
            announce(signals.daemon_stopped, self.daemon, reason=reason)

    @contextlib.contextmanager
    def opened(self, first: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Checks and ``first`` done and ``lifespan()`` open, however long the database takes to
        answer."""
        with kept_between_units(), ExitStack() as stack:
            if self._wait_for_the_database(lambda: self._open(stack, first)):
                announce(signals.daemon_ready, self.daemon)
            yield

    def _open(self, stack: ExitStack, first: Callable[[], object]) -> None:
        with fresh_connections:
            self.daemon.check_everything()
            first()
            lifespan = self.daemon.lifespan()
            lifespan.__enter__()
            stack.push(_fresh_exit(lifespan))

    # The loop's questions

    def wait_until_due(self, last: Iteration | None) -> bool:
        """Wait for the next tick, in slices of at most a pulse. False when there is none to come.

        Both clocks are asked anew in each slice: the wall clock may be set while we wait.
        """
        waiting = False
        while self.goes_on(last.number if last else 0):
            self.pulsed()
            hindrance = self.hindrance  # asked first: when it falls away, ``since`` has changed
            now = self.now = self.clock.moment()
            self.due = next_due(self.schedule, self._counted(last), self.since, now)
            if self.due == NEVER:
                self.outcome = NOTHING_DUE
                break
            seconds = self._until(self.due, now)
            if hindrance:
                seconds = self.pulse
            elif seconds <= 0:
                return True
            if not waiting:
                waiting = True
                close_idle(seconds)
                announce(signals.daemon_waiting, self.daemon, due=self.due)
            self.wait(min(seconds, self.left(now)))
        return False

    def wait(self, seconds: float) -> None:
        """Wait as the loop does: no longer than a pulse, or until told to stop, or nudged."""
        self.clock.wait(min(seconds, self.pulse), self.stop.wait_as_loop)

    def nudge(self) -> None:
        """End the loop's wait, to have it look anew at what is due. From any thread."""
        self.stop.nudge()

    def pulsed(self) -> None:
        """Give a sign of life, unless something that runs is stuck: that must look stuck."""
        running = self.stop.ticks  # between the ticks of a loop it is empty
        if running and any(tick.overdue_since is not None for tick in list(running.values())):
            return
        if signals.daemon_pulse.receivers:
            announce(signals.daemon_pulse, self.daemon)

    @property
    def hindrance(self) -> str:
        """Why it may not tick now, though a tick is due: "not leader". "" if it may."""
        return self.leadership.hindrance if self.leadership is not None else ""

    def entitled(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """A unit of work, with the right to go on taken away when this process leads no more."""
        return self.leadership.entitled(work) if self.leadership is not None else work

    def begin_schedule_anew(self) -> None:
        """Have the schedule count from now on, as if the life began: nothing that came due while
        another led is run now. From any thread."""
        self.since = self.clock.moment()

    def campaigning(self) -> AbstractContextManager[None]:
        """Taking part in the election of a leader, where there is one."""
        return self.leadership.campaigning() if self.leadership else contextlib.nullcontext()

    def _counted(self, last: Iteration | None) -> Iteration | None:
        if last is not None and last.started.monotonic < self.since.monotonic:
            return None
        return last

    def _until(self, due: Moment, now: Moment) -> float:
        if self._refused_since is not None:  # no later than when the refusal is proven
            return min(due.monotonic, self._refused_since + PROVEN_AFTER) - now.monotonic
        return due.monotonic - now.monotonic

    def left(self, now: Moment) -> float:
        """Seconds until ``max_seconds`` have passed."""
        if self.settings.max_seconds is None:
            return float("inf")
        return self.begun.monotonic + self.settings.max_seconds - now.monotonic

    def goes_on(self, ticks: int) -> bool:
        """Whether there is to be another tick after so many."""
        if self.stop.asked or self._end is not None:
            return False
        if not (limit := self._limit(ticks)):
            return True
        self.outcome = limit
        if self.settings.supervised:
            self._await_turn()
        return False

    def _limit(self, ticks: int) -> str:
        """Which of its limits this life has reached after so many ticks; "" for none."""
        settings = self.settings
        if settings.max_ticks and ticks >= settings.max_ticks:
            if settings.once:
                return "each job has run once" if settings.jobs else "it has ticked once"
            return f"max_ticks of {settings.max_ticks} reached"
        if settings.max_seconds and self.left(self.clock.moment()) <= 0:
            return f"max_seconds of {settings.max_seconds:g} reached"
        if ticks and settings.max_memory and resident() > settings.max_memory:
            return f"max_memory of {size_text(settings.max_memory)} reached"
        return ""

    def _await_turn(self) -> None:
        """Begin no tick, and go on living until the supervisor says so: one worker after the other
        is replaced, and not all that have reached their limit at once."""
        close_idle(self.pulse)
        while not self.stop.asked:
            announce(signals.limit_reached, self.daemon, reason=self.outcome)
            self.pulsed()
            self.wait(self.pulse)

    # A unit of work: begin(), then the work, then finish()

    def begin(self, number: int, due: Moment, job: str = "") -> None:
        if signals.iteration_started.receivers:
            announce(signals.iteration_started, self.daemon, number=number, due=due, job=job)

    def finish(
        self, iteration: Iteration, error: Exception | None, last: Iteration | None, *, cut: bool
    ) -> Iteration:
        """What a tick or a job came to, said to all. ``last`` is the one before it, ``cut`` whether
        we ended its connections because it was overdue."""
        if error is not None:
            iteration = after_failure(iteration, error, last, self.daemon.backoff, cut_by_us=cut)
        if signals.iteration_finished.receivers:
            announce(signals.iteration_finished, self.daemon, iteration=iteration)
        if error is not None:
            announce(signals.iteration_failed, self.daemon, iteration=iteration)
        self.learn(iteration)
        return iteration

    # What the life learns

    def learn(self, iteration: Iteration) -> None:
        """Note what a tick came to: whether its failure ends this life."""
        if not (self.settings.once and self._last is not None and self._last.error is not None):
            self._last = iteration  # of several jobs' --once, the one that failed
        error = iteration.error
        if error is None:
            self._ever_well, self._refused_since = True, None
            return
        try:
            with fresh_connections:
                self.daemon.on_error(iteration)
        except Exception:
            logger.exception("%s on_error() failed", self.daemon.name)
        self._note_refusal(error, iteration.problem)
        if self.leadership is not None and self.leadership.is_deposed:
            return  # it failed because we cut it
        most = self.settings.max_failures
        if most is not None and iteration.failures - iteration.outages >= most:
            self._end_with(
                Exit.MAX_FAILURES, f"failed {most} times in a row, the last time with", error
            )

    def conclude(self) -> None:
        """Raise what the process should end with, if that is not 0; or let it begin anew."""
        if self.stop.reloading:
            last_look()  # it may be told to end, after all
        if self.stop.forced:  # by what was asked, not by how the tick ended
            raise SystemExit(Exit.FORCED)
        if self.stop.reloading:
            reexec.execute_anew(self.daemon.name, self._folder)
        if self.settings.once and self._last is not None and self._last.error is not None:
            self._fail_at_once(self._last.error, self._last.problem, logged=True)
        if self._end is not None:
            raise self._end

    def _wait_for_the_database(self, open_everything: Callable[[], None]) -> bool:
        """Try until it succeeds; False if told to stop before. Errors that are not about the
        database being away pass through."""
        tries = 0
        while not self.stop.asked:
            try:
                open_everything()
                self._refused_since = None
                return True
            except ImproperlyConfigured as error:
                self.outcome = "misconfigured"
                sentence = " ".join(str(error).split())
                raise CommandError(sentence, returncode=Exit.MISCONFIGURED) from error
            except Exception as error:
                problem = classify(error)
                if problem not in _WAITED_FOR:
                    raise
                if self.settings.once:
                    self._fail_at_once(error, problem)
                tries += 1
                self._note_refusal(error, problem)
                if self._end is not None:
                    raise self._end from error
                self._wait_to_try_again(error, self.daemon.backoff.pause(tries))
        return False

    def _wait_to_try_again(self, error: Exception, seconds: float) -> None:
        again = self.clock.moment().later(seconds)
        announce(signals.database_awaited, self.daemon, error=error, seconds=seconds)
        close_idle(seconds)
        while not self.stop.asked:
            now = self.clock.moment()
            left = self._until(again, now)
            if left <= 0:
                return
            self.pulsed()
            self.wait(left)

    def _note_refusal(self, error: Exception, problem: Problem | None) -> None:
        """The server calls our settings wrong. If it never took them, and goes on refusing them,
        then they are; passwords that are changed under a running daemon are waited for."""
        if problem is not Problem.MISCONFIGURED or self._ever_well:
            self._refused_since = None
            return
        now = self.clock.moment().monotonic
        if self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since >= PROVEN_AFTER:
            self._end_with(
                Exit.MISCONFIGURED,
                f"was refused by the database for {PROVEN_AFTER:g} s; mend DATABASES:",
                error,
            )

    def give_up(self, code: Exit, what: str) -> None:
        """End this life before its next tick, with this exit code. From any thread."""
        self.outcome = what
        self._end = CommandError(f"{self.daemon.name} {what}", returncode=code)
        self.nudge()

    def _end_with(self, code: Exit, what: str, error: Exception) -> None:
        self.outcome = f"{what} {one_line(error)}"
        self._end = CommandError(f"{self.daemon.name} {self.outcome}", returncode=code)

    def _fail_at_once(
        self, error: Exception, problem: Problem | None, *, logged: bool = False
    ) -> None:
        """What ``--once`` does with a failure: a program gets the error, a shell the code."""
        if not self.daemon._called_from_command_line:
            raise error
        code = Exit.MISCONFIGURED if problem is Problem.MISCONFIGURED else Exit.TICK_FAILED
        if logged:
            raise SystemExit(code)
        raise CommandError(f"{self.daemon.name}: {one_line(error)}", returncode=code)

    # What the watcher tells us; from other threads

    def on_asked(self, reason: str) -> None:
        moment = signals.daemon_reloading if self.stop.reloading else signals.daemon_stopping
        announce(moment, self.daemon, reason=reason)
        self._announced_stopping.set()

    def on_overdue(self, tick: Tick) -> None:
        frame = sys._current_frames().get(tick.thread)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        announce(
            signals.tick_overdue, self.daemon, seconds=tick.timeout, stack=stack, job=tick.name
        )

    def on_forced(self, reason: str) -> None:
        self.last_words()
        announce(signals.daemon_forced, self.daemon, reason=reason)
        self._announced_forced.set()

    def cut(self, threads: set[int], *, for_good: bool) -> None:
        cut_connections(threads, for_good=for_good)


def _fresh_exit(manager: AbstractContextManager[Any]) -> Callable[..., bool | None]:
    """Leave a context manager as a unit of work: its connections may have died while it stood."""

    def leave(*error: Any) -> bool | None:
        with fresh_connections:
            return manager.__exit__(*error)

    return leave
