"""One trial: a daemon runs a few ticks in a child process, and one trouble occurs meanwhile."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction
from django.core import mail
from django.core.management import call_command
from django.db import connections

from daemonkit import signals
from daemonkit.command import BaseDaemonCommand
from daemonkit.connections.drop_reasons import left_open
from daemonkit.connections.thread import this_thread
from daemonkit.errors import Problem, chain, one_line
from daemonkit.iteration import Iteration
from daemonkit.testing.clock import FakeClock
from daemonkit.testing.intercepting import intercepting
from daemonkit.testing.survival.injection import Injection

MAX_TICKS = 60
"""Ticks after which a trial ends in any case."""

DUE_TIMES = 3
"""How many due times a daemon runs without trouble."""

START = 1_767_225_600.0
"""The start of a trial on its fake clock: 2026-01-01."""


class Tick(NamedTuple):
    """The result of one tick, or of one run of a job."""

    error: str
    is_conflict: bool = False
    """Whether it failed because of a conflict with another transaction. It is retried then."""


class Outcome(NamedTuple):
    """The result of a trial. A child sends it, so it holds only texts and numbers."""

    ticks: list[Tick]
    queries: list[int]
    """The number of each query whose text is new."""
    commits: list[int]
    """The number of each commit whose text is new."""
    lost: str
    swallowed: str
    """The statement whose session was lost, if the tick neither failed nor retried it."""
    left_open: str
    mails: int
    """How many mails Django has sent to its backend for tests, which keeps them in memory."""
    ended: str
    """The error that ended the daemon; "" if it stopped normally."""

    @property
    def good_ticks(self) -> int:
        return sum(not tick.error for tick in self.ticks)

    @property
    def failures(self) -> list[Tick]:
        return [tick for tick in self.ticks if tick.error]


class Trial:
    """A daemon, the trouble that occurs, and the end of the trial.

    The daemon is stopped after ``good_ticks`` successful ticks; with None, after three due times.
    ``before_tick`` is called before its first tick, ``at_wait`` at each wait with its number.
    """

    def __init__(
        self,
        command: BaseDaemonCommand,
        using: str,
        options: dict[str, Any],
        *,
        good_ticks: int | None = None,
        injection: Injection | None = None,
        before_tick: Callable[[], None] = lambda: None,
        at_wait: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._command, self._using, self._options = command, using, options
        self._good_ticks = good_ticks
        self._injection = injection or Injection()
        self._before_tick: Callable[[], None] | None = before_tick
        self._clock = TrialClock(at_wait)
        self._ticks: list[Tick] = []
        self._due_times: set[float] = set()
        self._swallowed = self._left_open = ""

    def run(self) -> Outcome:
        """Run the daemon, and return the outcome."""
        ended, mails = "", len(getattr(mail, "outbox", []))
        sender = type(self._command)
        self._watch_work()
        signals.iteration_finished.connect(self._on_finished, sender=sender)
        try:
            with intercepting(self._using, self._injection):
                call_command(self._command, clock=self._clock, **self._options)
        except (Exception, SystemExit) as error:
            ended = one_line(error)
        finally:
            signals.iteration_finished.disconnect(self._on_finished, sender=sender)
        injection = self._injection
        return Outcome(
            self._ticks,
            list(injection.queries.first.values()),
            list(injection.commits.first.values()),
            injection.lost,
            self._swallowed,
            self._left_open,
            len(getattr(mail, "outbox", [])) - mails,
            ended,
        )

    # What it does around each tick

    def _watch_work(self) -> None:
        if connections[self._using].vendor != "sqlite":  # whose losses are not waited for at start
            self._watch_lifespan()
        names = self._options.get("job") or ["tick"]
        for name in names:
            setattr(self._command, name, self._watched(getattr(self._command, name)))

    def _watch_lifespan(self) -> None:
        """Also count the queries with which ``lifespan()`` opens."""
        lifespan = self._command.lifespan

        def watched() -> Any:
            manager = lifespan()
            is_sync = hasattr(manager, "__enter__")
            return self._opening(manager) if is_sync else self._opening_async(manager)

        setattr(self._command, "lifespan", watched)  # noqa: B010  mypy refuses it plain

    @contextlib.contextmanager
    def _opening(self, manager: Any) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            with self._counting():
                value = stack.enter_context(manager)
            yield value

    @contextlib.asynccontextmanager
    async def _opening_async(self, manager: Any) -> AsyncIterator[Any]:
        async with contextlib.AsyncExitStack() as stack:
            with self._counting():
                value = await stack.enter_async_context(manager)
            yield value

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        self._injection.is_working = True
        try:
            yield
        finally:
            self._injection.is_working = False

    def _watched(self, work: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(work)
        async def watched_coroutine() -> Any:
            with self._working():
                return await work()

        @functools.wraps(work)
        def watched() -> Any:
            with self._working():
                return work()

        return watched_coroutine if iscoroutinefunction(work) else watched

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        injection = self._injection
        before, self._before_tick = self._before_tick, None
        if before is not None:
            before()
        was_lost = bool(injection.lost)
        with self._counting():
            yield
            if injection.lost and not was_lost and not injection.was_handled:
                self._swallowed = injection.lost
            self._left_open = self._left_open or _what_is_left_open()

    def _on_finished(self, iteration: Iteration, **_: Any) -> None:
        error = "" if iteration.error is None else one_line(iteration.error)
        self._ticks.append(Tick(error, _is_conflict(iteration)))
        self._due_times.add(iteration.due.monotonic)
        if self._is_enough():
            self._command.life.ask_to_stop("the trial is over")

    def _is_enough(self) -> bool:
        if self._good_ticks is not None:
            return sum(not tick.error for tick in self._ticks) >= self._good_ticks
        return len(self._due_times) >= DUE_TIMES


def _is_conflict(iteration: Iteration) -> bool:
    if iteration.problem is Problem.RETRY:
        return True
    behind = chain(iteration.error) if iteration.error is not None else ()
    return any(getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY") for error in behind)


def _what_is_left_open() -> str:
    for link in this_thread().links:
        wrapper = link.wrapper()
        if wrapper is not None and not link.belongs_to_caller:
            with contextlib.suppress(Exception):  # the session has been lost
                if what := left_open(link, wrapper):
                    return what
    return ""


class TrialClock(FakeClock):
    """A fake clock that reports the number of each wait."""

    def __init__(self, at_wait: Callable[[int], None]) -> None:
        super().__init__(START)
        self._at_wait = at_wait

    def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
        self._at_wait(len(self.waits) + 1)
        super().wait(seconds if math.isfinite(seconds) else 3600.0, told_to_stop)
