"""The examination of a daemon: try each trouble, and describe each fault in a sentence."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from daemonkit.command import BaseDaemonCommand
from daemonkit.testing.sessions import kill_all_sessions
from daemonkit.testing.survival.arena import Arena
from daemonkit.testing.survival.children import Child, ChildFailed
from daemonkit.testing.survival.injection import Injection, Point
from daemonkit.testing.survival.outage import Outage
from daemonkit.testing.survival.stage import Expectation
from daemonkit.testing.survival.trial import MAX_TICKS, Outcome, Trial
from daemonkit.testing.survival.troubles import Fault, Trouble

STOP_SECONDS = 5.0
"""How long a tick may run after SIGTERM."""

MAX_POINTS = 5
"""The most queries of a daemon, and the most commits, whose session is lost."""


class Examination:
    """Examines a loop, or one job. There is a method for each trouble, which yields its faults."""

    def __init__(self, arena: Arena, options: dict[str, Any]) -> None:
        self._arena, self._options = arena, options
        self._usual: Outcome
        self._expectation: Expectation
        self._observed: Any = None

    def examine(self, troubles: list[Trouble]) -> list[Fault]:
        faults = [Fault(Trouble.NONE, what) for what in self._try_without_trouble()]
        if faults:
            return faults
        ways = {
            Trouble.IDLE_LOSS: self._try_idle_loss,
            Trouble.QUERY_LOSS: self._try_query_loss,
            Trouble.COMMIT_LOSS: self._try_commit_loss,
            Trouble.OUTAGE_AT_START: self._try_outage_at_start,
            Trouble.OUTAGE_LATER: self._try_outage_later,
            Trouble.SIGTERM: self._try_sigterm,
            Trouble.SECOND_LIFE: self._try_second_life,
            Trouble.TWO_COPIES: self._try_two_copies,
        }
        for trouble in troubles:
            if trouble in ways:
                faults += [Fault(trouble, what) for what in self._safely(ways[trouble])]
        return faults

    def _safely(self, way: Callable[[], Iterator[str]]) -> Iterator[str]:
        try:
            yield from way()
        except TimeoutError:
            yield "it did not end in time"
        except ChildFailed as error:
            yield str(error)

    # The troubles

    def _try_without_trouble(self) -> Iterator[str]:
        seen = []
        for _ in range(2):
            self._arena.restore()
            try:
                self._usual = self._trial()
            except (TimeoutError, ChildFailed) as error:
                yield str(error) or "it did not end in time"
                return
            yield from self._failed(self._usual)
            if self._usual.left_open:
                yield f"a tick {self._usual.left_open}"
            seen.append(self._arena.seen())
        self._expectation = Expectation(seen[0][0], seen[1][0])
        self._observed = seen[0][1] if seen[0][1] == seen[1][1] else None

    def _try_idle_loss(self) -> Iterator[str]:
        def kill(number: int) -> None:
            if number <= 2:
                kill_all_sessions(self._arena.using)

        outcome = self._play(at_wait=kill)
        if outcome.failures:
            yield (
                f"a tick failed, though a unit of work gets a new session: "
                f"{outcome.failures[0].error}; does something keep a connection of its own?"
            )
        yield from self._judge(outcome)

    def _try_query_loss(self) -> Iterator[str]:
        for number in spread(self._usual.queries):
            yield from self._lose(Point(is_commit=False, number=number, applied=False))

    def _try_commit_loss(self) -> Iterator[str]:
        for number in spread(self._usual.commits):
            yield from self._lose(Point(is_commit=True, number=number, applied=True))
        yield from self._lose(Point(is_commit=True, number=1, applied=False))

    def _try_outage_at_start(self) -> Iterator[str]:
        yield from self._go_away(begins=0)

    def _try_outage_later(self) -> Iterator[str]:
        yield from self._go_away(begins=1)

    def _try_sigterm(self) -> Iterator[str]:
        began = time.monotonic()
        outcome = self._play(before_tick=lambda: os.kill(os.getpid(), signal.SIGTERM))
        if time.monotonic() - began > STOP_SECONDS or outcome.ended:
            yield (
                f"its tick had not ended {STOP_SECONDS:g} s after SIGTERM; does it look at "
                f"self.stopping? {outcome.ended}"
            )
            return
        if outcome.failures:
            yield f"the tick in flight failed: {outcome.failures[0].error}"
            return
        left = self._usual.good_ticks - outcome.good_ticks
        yield from self._judge(self._trial(good_ticks=max(left, 1)), "after it was started again")

    def _try_second_life(self) -> Iterator[str]:
        self._arena.restore()
        for life in self._arena.wait(self._arena.start(self._live_twice)):
            yield from self._failed(life, "when it is opened a second time in one process")

    def _try_two_copies(self) -> Iterator[str]:
        self._arena.restore()
        both_tick = multiprocessing.get_context("fork").Barrier(2, timeout=STOP_SECONDS)
        copies = [self._start(before_tick=both_tick.wait) for _ in range(2)]
        for outcome in [self._arena.wait(copy) for copy in copies]:
            failures = [tick for tick in outcome.failures if not tick.is_conflict]
            if failures or outcome.ended:
                yield f"one failed: {failures[0].error if failures else outcome.ended}"
        yield from self._compare("after both have worked")

    # Their steps

    def _trial(self, **details: Any) -> Outcome:
        outcome: Outcome = self._arena.wait(self._start(**details))
        return outcome

    def _start(self, **details: Any) -> Child:
        return self._arena.start(lambda: self._new_trial(**details).run())

    def _play(self, **details: Any) -> Outcome:
        """Run a trial from the initial state, for as many good ticks as without trouble."""
        self._arena.restore()
        return self._trial(good_ticks=self._usual.good_ticks, **details)

    def _live_twice(self) -> list[Outcome]:
        same = self._arena.make()
        commands = [same, same, self._arena.make()]
        return [self._new_trial(command, good_ticks=1).run() for command in commands]

    def _new_trial(self, command: BaseDaemonCommand | None = None, **details: Any) -> Trial:
        daemon = command or self._arena.make()
        return Trial(daemon, self._arena.using, self._options, **details)

    def _lose(self, point: Point) -> Iterator[str]:
        outcome = self._play(injection=Injection(point))
        if not outcome.lost:
            return
        where = f"after the loss of {short(outcome.lost)}"
        if point.is_commit:
            where += ", which had taken effect" if point.applied else ", which had no effect"
        if outcome.swallowed:
            yield f"a tick swallowed the error {where}: it ended well"
        elif len(outcome.failures) > 1:
            yield f"a later tick failed as well {where}: {outcome.failures[-1].error}"
        yield from self._judge(outcome, where)

    def _go_away(self, begins: int) -> Iterator[str]:
        outage = Outage(self._arena.using)

        def at_wait(number: int) -> None:
            if number == begins:
                outage.begin()
            elif number == begins + 2:
                outage.end()

        def live() -> Outcome:
            at_wait(0)
            return self._new_trial(good_ticks=self._usual.good_ticks, at_wait=at_wait).run()

        self._arena.restore()
        outcome: Outcome = self._arena.wait(self._arena.start(live))
        yield from self._judge(outcome, "when the database is back")

    def _judge(self, outcome: Outcome, when: str = "") -> Iterator[str]:
        """Yield what is wrong with the end of a trial, whatever happened in it."""
        if outcome.ended:
            yield f"it ended {when}: {outcome.ended}"
        elif outcome.good_ticks < self._usual.good_ticks and len(outcome.ticks) >= MAX_TICKS:
            yield f"it did not recover {when}: {outcome.ticks[-1].error}"
        elif outcome.left_open:
            yield f"a tick {outcome.left_open} {when}"
        elif outcome.mails > self._usual.mails:
            yield f"it sent {outcome.mails} mails {when}, instead of {self._usual.mails}"
        else:
            yield from self._compare(when)

    def _compare(self, when: str) -> Iterator[str]:
        tables, observed = self._arena.seen()
        if differences := self._expectation.differences(tables):
            yield f"the result of its work differs {when}: {', '.join(differences)}"
        if self._observed is not None and observed != self._observed:
            yield f"observe() returned {observed!r} {when}, instead of {self._observed!r}"

    def _failed(self, outcome: Outcome, when: str = "") -> Iterator[str]:
        if outcome.failures or outcome.ended:
            what = outcome.failures[0].error if outcome.failures else outcome.ended
            yield f"it failed {when}: {what}" if when else f"it failed: {what}"


def spread(numbers: list[int]) -> list[int]:
    """All numbers, or ``MAX_POINTS`` of them, evenly spread, with the first and the last."""
    if len(numbers) <= MAX_POINTS:
        return numbers
    step = (len(numbers) - 1) / (MAX_POINTS - 1)
    return [numbers[round(step * turn)] for turn in range(MAX_POINTS)]


def short(sql: str) -> str:
    """A statement in one short line."""
    line = " ".join(sql.split())
    return line if len(line) <= 60 else f"{line[:57]}..."
