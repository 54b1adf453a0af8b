"""What a tick held is freed before the next one begins: its variables, error and result."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction

from daemonkit import Backoff, BaseDaemonCommand, Every, Iteration, Moment, Poll, Schedule
from daemonkit.testing import FakeClock
from tests.kit.aliases import MakeAlias

QUICK = Backoff(first=0.1, cap=0.1)


class Row:
    """A row that a tick has fetched."""


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Without the garbage collector, so that only reference counts free objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive_before_each_tick(
    work: Callable[[Row], Any], schedule: Schedule | None = None, ticks: int = 6
) -> list[int]:
    """How many rows of earlier ticks are alive when a tick begins."""

    class Command(BaseDaemonCommand):
        backoff = QUICK

        def tick(self) -> Any:
            alive.append(sum(row() is not None for row in rows))
            row = Row()
            rows.append(weakref.ref(row))
            return work(row)

    alive: list[int] = []
    rows: list[weakref.ref[Row]] = []
    call_command(
        Command(),
        schedule=schedule or Every(1),
        clock=FakeClock(),
        max_ticks=ticks,
        verbosity=0,
        raise_errors=False,
    )
    assert len(alive) == ticks
    return alive


def fail(row: Row) -> None:
    raise ValueError("a bad row")


def fail_deeply(row: Row) -> None:
    def steps(rows: list[Row]) -> Iterator[Row]:
        for each in rows:
            yield each
            raise ValueError("a bad row")

    list(steps([row]))


def fail_with_a_cause(row: Row) -> None:
    try:
        fail(row)
    except ValueError as error:
        raise RuntimeError("no import") from error


def fail_in_a_group(row: Row) -> None:
    errors = []
    for _ in range(2):
        try:
            fail(row)
        except ValueError as error:
            errors.append(error)
    raise ExceptionGroup("no import", errors)


@pytest.mark.parametrize("work", [fail, fail_deeply, fail_with_a_cause, fail_in_a_group])
def test_what_a_failed_tick_held_is_freed_before_the_next_begins(
    work: Callable[[Row], Any],
) -> None:
    assert alive_before_each_tick(work) == [0] * 6


class Reporter(logging.Handler):
    """Reads the variables of each frame of a traceback and keeps their text, as Sentry does."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info:
            return
        step = record.exc_info[2]
        while step is not None:
            self.seen += [name for name, value in step.tb_frame.f_locals.items() if value]
            step = step.tb_next


def test_it_is_freed_even_if_an_error_reporter_has_read_its_variables() -> None:
    reporter = Reporter()
    logging.getLogger("daemonkit").addHandler(reporter)
    try:
        assert alive_before_each_tick(fail) == [0] * 6
    finally:
        logging.getLogger("daemonkit").removeHandler(reporter)
    assert reporter.seen.count("row") >= 2  # the whole traceback, at least once: tick() and fail()


def test_on_error_sees_the_variables_of_the_failed_tick() -> None:
    class Command(BaseDaemonCommand):
        schedule, backoff = Every(1), QUICK

        def tick(self) -> None:
            amount = 42
            raise ValueError(amount)

        def on_error(self, iteration: Iteration) -> None:
            assert iteration.error is not None
            step = iteration.error.__traceback__
            assert step is not None
            while step.tb_next is not None:
                step = step.tb_next
            amounts.append(step.tb_frame.f_locals["amount"])

    amounts: list[int] = []
    call_command(Command(), clock=FakeClock(), max_ticks=2, raise_errors=False)
    assert amounts == [42, 42]


@pytest.fixture(params=["mariadb", "postgres", "pooled postgres", "sqlite"])
def database(request: pytest.FixtureRequest, alias: MakeAlias) -> str:
    """An alias with a table that has one row, numbered 1."""
    kind = request.param.rpartition(" ")[2]
    server = None if kind == "sqlite" else request.getfixturevalue(kind)
    options = {"OPTIONS": {"pool": True}} if "pooled" in request.param else {}
    probe = alias(server, CONN_MAX_AGE=0 if options else None, **options)
    with connections[probe].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS held")
        cursor.execute("CREATE TABLE held (number integer PRIMARY KEY)")
        cursor.execute("INSERT INTO held VALUES (1)")
    return probe


def test_what_a_tick_held_is_freed_when_it_failed_in_the_database(database: str) -> None:
    def insert_a_duplicate(row: Row) -> None:
        with transaction.atomic(database), transaction.atomic(database):
            with connections[database].cursor() as cursor:
                cursor.execute("INSERT INTO held VALUES (1)")

    assert alive_before_each_tick(insert_a_duplicate) == [0] * 6
    with pytest.raises(IntegrityError):
        insert_a_duplicate(Row())


# Results


class AfterItsResult(Schedule):
    """The next tick is due after as many seconds as the last one returned."""

    def judge(self, result: Any) -> float:
        return float(len(result))

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        return begun if last is None else last.ended.later(last.result or 0.0)


@pytest.mark.parametrize("schedule", [Every(1), Poll(idle=1), AfterItsResult()])
def test_what_a_tick_returned_is_freed_before_the_next_begins(schedule: Schedule) -> None:
    assert alive_before_each_tick(lambda row: [row], schedule) == [0] * 6


def test_a_custom_schedule_gets_what_it_keeps_of_a_result() -> None:
    class Command(BaseDaemonCommand):
        schedule = AfterItsResult()

        def tick(self) -> str:
            return "xxx"

    clock = FakeClock()
    call_command(Command(), clock=clock, max_ticks=3)
    assert clock.waits == [3.0, 3.0]


def test_a_life_is_freed_without_the_garbage_collector_when_it_has_ended() -> None:
    """It holds descriptors, and a test suite runs thousands of them in one process."""

    class Short(BaseDaemonCommand):
        schedule = Poll()
        lives: ClassVar[list[weakref.ref[Any]]] = []

        def tick(self) -> bool:
            self.lives.append(weakref.ref(self.life))
            return True

    gc.disable()
    try:
        call_command(Short(), max_ticks=2)
        assert [life() for life in Short.lives] == [None, None]
    finally:
        gc.enable()
