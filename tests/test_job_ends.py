"""What the end of a job's run leaves: the next run, and nothing that the run held."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError

from daemonkit import Backoff, BaseDaemonCommand, Every, Iteration, Poll, job
from daemonkit.signals import iteration_finished, run_skipped
from daemonkit.testing import FakeClock

QUICK = Backoff(first=0.01, cap=0.01)


class Story:
    """What the jobs of one daemon came to."""

    def __init__(self, command: type[BaseDaemonCommand]) -> None:
        self.runs: list[Iteration] = []
        self.skips: list[str] = []
        iteration_finished.connect(self._note_run, sender=command)
        run_skipped.connect(self._note_skip, sender=command)

    def _note_run(self, iteration: Iteration, **_: Any) -> None:
        self.runs.append(iteration._replace(result=None, error=None))

    def _note_skip(self, reason: str, **_: Any) -> None:
        self.skips.append(reason)


def live(command: type[BaseDaemonCommand], **options: Any) -> Story:
    story = Story(command)
    call_command(command(), **{"raise_errors": False, "verbosity": 0, **options})
    return story


class Command(BaseDaemonCommand):
    ledger = False
    backoff = QUICK


# The next run


def test_a_poller_that_finds_something_goes_on_and_on() -> None:
    class Polling(Command):
        runs = 0

        @job(Poll(idle=0.001))
        def turn(self) -> bool:
            self.runs += 1
            return self.runs % 10 != 0

    assert len(live(Polling, max_ticks=300, max_seconds=60).runs) == 300


def test_a_run_that_lost_its_connection_is_never_refused_because_of_itself() -> None:
    """It is due again at once: at the very end of the run that failed."""

    class Losing(Command):
        lost: set[str] = set()

        def lose(self, name: str) -> None:
            if name not in self.lost:
                self.lost.add(name)
                raise OperationalError(2013, "Lost connection")

    jobs = {f"job_{number}": losing(f"job_{number}") for number in range(20)}
    story = live(type("Losing", (Losing,), jobs), max_ticks=40, max_seconds=60, threads=4)
    assert len(story.runs) == 40
    assert not story.skips


def losing(name: str) -> Any:
    def turn(self: Any) -> None:
        self.lose(name)

    turn.__name__ = name
    return job(Every(hours=1))(turn)


def test_what_comes_due_while_a_run_is_ending_waits_for_its_end_and_is_run() -> None:
    """A listener that takes its time is no longer the run."""
    ending, replaced = threading.Event(), threading.Event()

    class Often(Command):
        @job(Every(seconds=0.05))
        def turn(self) -> None: ...

    def slow_listener(iteration: Iteration, **_: Any) -> None:
        if iteration.number == 1:
            ending.set()
            assert replaced.wait(20)

    def note_skip(**_: Any) -> None:
        if ending.is_set():
            replaced.set()

    iteration_finished.connect(slow_listener, sender=Often)
    run_skipped.connect(note_skip, sender=Often)
    story = live(Often, max_ticks=2, max_seconds=60)
    assert len(story.runs) == 2
    assert set(story.skips) == {"grace"}  # the older ones gave way to the newest
    first, second = story.runs
    assert second.due.monotonic > first.due.monotonic + 0.05


def test_runs_never_overlap_the_telling_of_the_run_before() -> None:
    together: list[int] = []
    busy: list[int] = []

    class Often(Command):
        @job(Every(seconds=0.01))
        def turn(self) -> None:
            busy.append(1)
            together.append(len(busy))
            raise ValueError("no")

        def on_error(self, iteration: Iteration) -> None:
            threading.Event().wait(0.03)
            busy.pop()

    live(Often, max_ticks=5, max_seconds=60)
    assert together == [1] * 5


class Table:
    """What a DataFrame and an array answer."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of a table is ambiguous")

    def __str__(self) -> str:
        raise ValueError("no text")


def test_a_result_whose_truth_cannot_be_told_is_a_failed_run_of_a_poller() -> None:
    class Polling(Command):
        @job(Poll(idle=1))
        def turn(self) -> Table:
            return Table()

    story = live(Polling, clock=FakeClock(), max_ticks=3)
    assert [run.failures for run in story.runs] == [1, 2, 3]


def test_a_result_that_the_schedule_does_not_judge_is_no_failure() -> None:
    class Often(Command):
        @job(Every(seconds=1))
        def turn(self) -> Table:
            return Table()

    story = live(Often, clock=FakeClock(), max_ticks=3, verbosity=2)
    assert [run.failures for run in story.runs] == [0, 0, 0]


class Broken(Backoff):
    def pause(self, failures: int) -> float:
        raise RuntimeError("broken")


@pytest.mark.parametrize("schedule", [Poll(idle=1), Every(seconds=1)])
def test_whatever_fails_at_the_end_of_a_run_the_job_goes_on(
    schedule: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Command):
        backoff = Broken()
        starts: list[float] = []

        @job(schedule)
        def turn(self) -> None:
            self.starts.append(self.life.clock.moment().monotonic)
            raise ValueError("no")

    live(Failing, clock=FakeClock(), max_ticks=3)
    assert Failing.starts == [0, 1, 2]
    assert "turn: the end of its run was not noted" in caplog.text


def test_what_ends_the_process_ends_it_from_on_error_too() -> None:
    class Leaving(Command):
        @job(Every(seconds=1))
        def turn(self) -> None:
            raise ValueError("no")

        def on_error(self, iteration: Iteration) -> None:
            raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        live(Leaving, clock=FakeClock(), max_ticks=5)
    assert caught.value.code == 3


def test_no_more_runs_begin_than_max_ticks_though_one_waited_for_the_end_of_another() -> None:
    """A due time that came while a run was ending is decided together with new ones."""

    class Often(Command):
        @job(Every(seconds=0.01))
        def one(self) -> None: ...

        @job(Every(seconds=0.01))
        def other(self) -> None:
            raise ValueError("no")

        def on_error(self, iteration: Iteration) -> None:
            threading.Event().wait(0.03)

    assert len(live(Often, max_ticks=9, max_seconds=60).runs) == 9


class Cancelled(BaseException):
    """As gevent's and trio's."""


@pytest.mark.parametrize("error", [asyncio.CancelledError, Cancelled])
def test_a_cancelled_task_is_a_failed_run_and_the_other_jobs_go_on(
    error: type[BaseException],
) -> None:
    class Both(Command):
        @job(Every(seconds=10))
        def bad(self) -> None:
            raise error

        @job(Every(seconds=10))
        async def good(self) -> None: ...

    story = live(Both, clock=FakeClock(), max_ticks=6)
    assert sorted((run.job, run.failures) for run in story.runs) == [
        ("bad", 1), ("bad", 2), ("bad", 3), ("good", 0), ("good", 0), ("good", 0)
    ]  # fmt: skip


def test_a_job_that_returns_a_coroutine_has_it_awaited() -> None:
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    class Returning(Command):
        @job(Every(seconds=1))
        def turn(self) -> Any:
            return work()

    live(Returning, clock=FakeClock(), max_ticks=2)
    assert done == [1, 1]


# What the run held


class Row:
    """What a run works on."""


def alive_between_runs(work: Callable[[Row], Any], **options: Any) -> list[int]:
    """How many rows of earlier runs are alive, as another job sees it between them."""

    class Working(Command):
        @job(Every(seconds=10))
        def turn(self) -> Any:
            row = Row()
            rows.append(weakref.ref(row))
            return work(row)

        @job(Every(seconds=10))
        def look(self) -> None: ...

    def count(iteration: Iteration, **_: Any) -> None:
        if iteration.job == "look" and iteration.number > 1:
            alive.append(sum(row() is not None for row in rows))

    alive: list[int] = []
    rows: list[weakref.ref[Row]] = []
    iteration_finished.connect(count, sender=Working)
    gc.collect()
    gc.disable()
    try:
        live(Working, clock=FakeClock(), threads=1, max_ticks=8, **options)
    finally:
        gc.enable()
    assert len(rows) == 4
    return alive


def keep(row: Row) -> Row:
    return row


def fail(row: Row) -> None:
    raise ValueError("a bad row")


def fail_with_a_cause(row: Row) -> None:
    try:
        fail(row)
    except ValueError as error:
        raise RuntimeError("no import") from error


@pytest.mark.parametrize("work", [keep, fail, fail_with_a_cause])
def test_what_a_run_held_is_free_before_the_next_begins(work: Callable[[Row], Any]) -> None:
    assert set(alive_between_runs(work)) == {0}
