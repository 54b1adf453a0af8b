"""What a tick may return and raise without harming its daemon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from daemonkit import Backoff, BaseDaemonCommand, Every, Iteration, Poll, Schedule
from daemonkit.listeners.status_line import Line
from daemonkit.testing import FakeClock
from tests.kit.aliases import MakeAlias


def live(work: Callable[[], Any], schedule: Schedule, ticks: int = 3) -> list[Iteration]:
    """The iterations of a daemon whose ticks do this work."""

    class Command(BaseDaemonCommand):
        backoff = Backoff(first=0.1, cap=0.1)

        def tick(self) -> Any:
            return work()

        def on_error(self, iteration: Iteration) -> None:
            failed.append(iteration)

    failed: list[Iteration] = []
    call_command(
        Command(),
        schedule=schedule,
        clock=FakeClock(),
        max_ticks=ticks,
        verbosity=2,
        raise_errors=False,
    )
    return failed


# Results


class Frame:
    """Behaves like a pandas.DataFrame: it has no truth value."""

    def __bool__(self) -> bool:
        raise ValueError("The truth value of a DataFrame is ambiguous.")

    def __len__(self) -> int:
        return 3


class Mute:
    """Its ``str()`` fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Rows:
    """Queries for its truth value and its ``repr()``, as a QuerySet does."""

    def __init__(self, alias: str) -> None:
        self.alias, self.queries = alias, 0

    def __iter__(self) -> Any:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            self.queries += 1
            return iter(cursor.fetchall())

    def __bool__(self) -> bool:
        return any(self)

    __str__ = __repr__ = lambda self: f"{list(self)}"


@pytest.mark.parametrize("result", [Frame(), Mute(), float("nan"), [Mute()], b"x", "x" * 10**6])
def test_a_tick_under_a_fixed_schedule_may_return_anything(
    result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "daemonkit"):
        assert live(lambda: result, Every(1)) == []
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []
    assert max(len(record.message) for record in caplog.records) < 300


def test_a_result_without_a_truth_value_fails_the_tick_of_a_poller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = live(Frame, Poll(idle=1))
    assert [iteration.failures for iteration in failed] == [1, 2, 3]
    assert "The truth value of a DataFrame is ambiguous." in str(failed[0].error)
    assert failed[0].result is None


def test_a_lazy_result_is_evaluated_once_and_within_its_unit_of_work(alias: MakeAlias) -> None:
    probe = alias(None, CONN_MAX_AGE=0)
    results: list[Rows] = []

    def work() -> Rows:
        results.append(Rows(probe))
        return results[-1]

    assert live(work, Poll(idle=1)) == []
    assert [rows.queries for rows in results] == [1, 1, 1]
    assert connections[probe].connection is None


@pytest.mark.parametrize(
    ("result", "text"),
    [
        *[(None, ""), (False, ""), (True, "True"), (0, ""), (41, "41"), ("", ""), ([], "")],
        *[("41 of\n90 files", "41 of 90 files"), (["a"], "['a']"), (Frame(), "<Frame>")],
        (Mute(), "<Mute>"),
    ],
)
def test_a_result_is_shown_as_a_short_text(result: Any, text: str) -> None:
    moment = FakeClock().moment()
    assert Iteration(1, moment, moment, 0.1, result).result_text == text


def test_the_status_keeps_no_result_that_holds_memory() -> None:
    line, moment = Line(), FakeClock().moment()
    for result in (Frame(), [1] * 1000, "x" * 1000, 41):
        line.ended(Iteration(1, moment, moment, 0.1, result))
        assert line.last is not None
        assert line.last.result in (None, "x" * 300, 41)
    assert str(line).endswith("tick 1 took 100 ms: 41")


# Errors


class Cancelled(BaseException):
    """Stands for gevent's GreenletExit and trio's Cancelled, which do not derive from
    ``Exception``."""


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        Cancelled(),
        BaseExceptionGroup("two", [asyncio.CancelledError(), ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_cancelled_task_is_a_failed_tick(error: BaseException) -> None:
    def work() -> None:
        raise error

    failed = live(work, Every(1))
    assert [(each.error, each.failures) for each in failed] == [(error, n) for n in (1, 2, 3)]


def test_an_await_of_a_task_that_was_cancelled_is_a_failed_tick() -> None:
    class Command(BaseDaemonCommand):
        schedule = Every(1)
        ticks = 0

        async def tick(self) -> None:
            type(self).ticks += 1
            if self.ticks == 2:
                task = asyncio.create_task(asyncio.sleep(5))
                await asyncio.sleep(0)
                task.cancel()
                await task

    call_command(Command(), clock=FakeClock(), max_ticks=4, raise_errors=False)
    assert Command.ticks == 4


@pytest.mark.parametrize(
    "error",
    [
        *[SystemExit(3), KeyboardInterrupt(), GeneratorExit()],
        BaseExceptionGroup("two", [SystemExit(3), ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_is_meant_to_end_a_process_ends_it(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        live(work, Every(1))


def test_on_error_may_be_cancelled_too() -> None:
    class Command(BaseDaemonCommand):
        schedule = Every(1)
        backoff = Backoff(first=0.1, cap=0.1)
        ticks = 0

        def tick(self) -> None:
            type(self).ticks += 1
            raise CommandError("no")

        def on_error(self, iteration: Iteration) -> None:
            raise asyncio.CancelledError

    call_command(Command(), clock=FakeClock(), max_ticks=3, raise_errors=False)
    assert Command.ticks == 3
