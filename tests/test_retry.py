"""What a failed tick does to the next due time: back-off, and the one try at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, OperationalError

from daemonkit import Backoff, BaseDaemonCommand, Cron, Every, Iteration, Moment, Poll, Problem
from daemonkit.schedules.backoff import after_failure, next_due
from daemonkit.testing import FakeClock
from tests.kit.simulated import live, starts, wall

DAY = 86400.0

# As the drivers number them; that they do is shown in test_errors.py, on real servers.
LOST = OperationalError(2013, "Lost connection to server during query")
UNREACHABLE = OperationalError(2002, "Can't connect to local server")
DEADLOCK = OperationalError(1213, "Deadlock found when trying to get lock")
READ_ONLY = OperationalError(1836, "Running in read-only mode")


def outcomes(*errors: Exception | None) -> Callable[[], None]:
    """A ``tick`` that fails in these ways one after the other, and then ends well."""
    remaining = itertools.chain(errors, itertools.repeat(None))

    def tick() -> None:
        if error := next(remaining):
            raise error

    return tick


def gaps(iterations: list[Iteration]) -> list[float]:
    """Seconds between one start and the next."""
    return [after - before for before, after in itertools.pairwise(starts(iterations))]


def between(low: float, high: float, values: Iterable[float]) -> bool:
    return all(low <= value <= high for value in values)


# Backoff: how long is a pause


@pytest.mark.parametrize(
    ("failures", "whole"), [(1, 1), (2, 2), (3, 4), (4, 8), (6, 32), (7, 60), (8, 60), (1000, 60)]
)
def test_a_pause_doubles_to_a_cap_and_is_drawn_between_half_and_the_whole(
    failures: int, whole: float
) -> None:
    pauses = [Backoff().pause(failures) for _ in range(300)]
    assert between(whole / 2, whole, pauses)
    assert min(pauses) < 0.6 * whole
    assert max(pauses) > 0.9 * whole


def test_two_daemons_do_not_come_back_as_one() -> None:
    assert len({Backoff().pause(5) for _ in range(50)}) == 50


def test_a_backoff_of_ones_own() -> None:
    backoff = Backoff(first=0.1, factor=10, cap=5)
    assert between(0.05, 0.1, (backoff.pause(1) for _ in range(50)))
    assert between(0.5, 1, (backoff.pause(2) for _ in range(50)))
    assert between(2.5, 5, (backoff.pause(3) for _ in range(50)))


def test_a_steady_backoff_is_a_factor_of_one() -> None:
    assert between(5, 10, (Backoff(first=10, factor=1).pause(n) for n in (1, 5, 500)))


def test_months_of_failures_do_not_overflow() -> None:
    assert between(30, 60, [Backoff().pause(10**9), Backoff(factor=10).pause(10**9)])


def test_a_backoff_is_a_value() -> None:
    assert Backoff() == Backoff(first=1, factor=2, cap=60)
    assert len({Backoff(), Backoff(), Backoff(cap=5)}) == 2
    assert repr(Backoff()) == "Backoff(first=1.0, factor=2.0, cap=60.0)"


@pytest.mark.parametrize("values", [{"first": -1}, {"first": 0}, {"factor": 0.5}, {"cap": 0}])
def test_a_backoff_that_would_not_wait_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Backoff\(\) needs first and cap above"):
        Backoff(**values)


# What a daemon does


def test_a_lost_connection_is_tried_again_at_once() -> None:
    iterations = live(Every(days=1), FakeClock(), 3, outcomes(LOST))
    assert starts(iterations) == [0, 0, DAY]


def test_but_only_once_then_it_backs_off() -> None:
    iterations = live(Every(days=1), FakeClock(), 5, outcomes(LOST, LOST, LOST))
    assert [iteration.pause == 0 for iteration in iterations] == [True, False, False, True, True]
    first, second, third, last = gaps(iterations)
    assert first == 0
    assert 1 <= second <= 2
    assert 2 <= third <= 4
    assert last == DAY


def test_each_loss_after_a_good_tick_has_its_try_at_once() -> None:
    iterations = live(Every(10), FakeClock(), 6, outcomes(LOST, None, LOST, None, LOST))
    assert gaps(iterations) == [0, 10, 0, 10, 0]


def test_a_connection_that_we_cut_ourselves_is_not_tried_again_at_once() -> None:
    at = Moment(0, 0)
    tick = Iteration(number=1, due=at, started=at, seconds=5)
    failed = after_failure(tick, LOST, None, Backoff(), cut_by_us=True)
    assert failed.problem is Problem.LOST
    assert 0.5 <= failed.pause <= 1


@pytest.mark.parametrize("error", [UNREACHABLE, DEADLOCK, READ_ONLY])
@pytest.mark.parametrize("schedule", [Every(days=1), Poll(idle=3600), Cron("0 3 * * *")])
def test_work_that_the_database_prevented_is_due_after_the_pause_not_after_the_schedule(
    schedule: Any, error: Exception
) -> None:
    iterations = live(schedule, FakeClock(wall("2024-09-12 02:59")), 4, outcomes(error, error))
    first, second, then = gaps(iterations)
    assert 0.5 <= first <= 1
    assert 1 <= second <= 2
    assert then >= 3600


def test_an_outage_of_hours_is_asked_after_once_a_minute_at_most_and_at_least() -> None:
    iterations = live(Every(5), FakeClock(), 200, outcomes(*[UNREACHABLE] * 199))
    assert between(30, 60, gaps(iterations)[6:])


def test_a_tick_that_fails_by_itself_waits_for_its_schedule() -> None:
    for error in (ValueError("a bug"), IntegrityError(1062, "Duplicate entry")):
        iterations = live(Every(30), FakeClock(), 4, outcomes(error, error))
        assert starts(iterations) == [0, 30, 60, 90]


def test_a_failing_tick_is_never_earlier_than_its_schedule_and_later_when_it_goes_on() -> None:
    iterations = live(Every(4), FakeClock(), 12, outcomes(*[ValueError("a bug")] * 11))
    lengths = gaps(iterations)
    assert min(lengths) >= 4
    assert between(30, 60, lengths[6:])


def test_a_poller_that_fails_does_not_come_back_at_once() -> None:
    iterations = live(Poll(idle=0.001), FakeClock(), 4, outcomes(*[ValueError("a bug")] * 3))
    assert gaps(iterations)[0] >= 0.5
    assert gaps(iterations)[2] >= 2


def test_a_cron_job_that_fails_by_itself_runs_at_its_next_time() -> None:
    clock = FakeClock(wall("2024-09-12 02:00"))
    iterations = live(Cron("0 3 * * *"), clock, 3, outcomes(ValueError("a bug")))
    assert gaps(iterations) == [DAY, DAY]


def test_a_pause_counts_from_the_end_of_the_tick() -> None:
    clock = FakeClock()

    def tick() -> None:
        clock.advance(20)
        raise UNREACHABLE

    first, second = gaps(live(Every(1), clock, 3, tick))
    assert 20.5 <= first <= 21
    assert 21 <= second <= 22


def test_a_clock_that_is_set_changes_no_pause() -> None:
    failed_at, now = Moment(100, wall("2024-09-12 12:00")), Moment(100, wall("2024-09-12 09:00"))
    tick = Iteration(number=1, due=failed_at, started=failed_at, seconds=0)
    failed = after_failure(tick, UNREACHABLE, None, Backoff(), cut_by_us=False)
    due = next_due(Cron("0 3 * * *"), failed, failed_at, now)
    assert due.monotonic == 100 + failed.pause


# What is counted


def test_failures_in_a_row_are_counted_and_a_good_tick_forgets_them() -> None:
    iterations = live(Every(1), FakeClock(), 5, outcomes(LOST, ValueError("a bug"), None, LOST))
    assert [iteration.failures for iteration in iterations] == [1, 2, 0, 1, 0]
    assert [iteration.number for iteration in iterations] == [1, 2, 3, 4, 5]
    assert [iteration.problem for iteration in iterations] == [
        Problem.LOST,
        None,
        None,
        Problem.LOST,
        None,
    ]


def test_an_outage_of_the_database_ends_no_daemon() -> None:
    iterations = live(Every(1), FakeClock(), 50, outcomes(*[UNREACHABLE] * 50), max_failures=3)
    assert len(iterations) == 50
    assert (iterations[-1].failures, iterations[-1].outages) == (50, 50)


def test_an_outage_in_between_neither_counts_nor_forgives() -> None:
    errors = [ValueError("one"), UNREACHABLE, ValueError("two"), UNREACHABLE, ValueError("three")]
    clock = FakeClock()
    with pytest.raises(Exception, match="failed 3 times in a row, the last time with ValueError"):
        live(Every(1), clock, 50, outcomes(*errors), max_failures=3)


def test_a_tick_that_beats_before_it_fails_restarts_the_count_of_failures() -> None:
    class Command(BaseDaemonCommand):
        schedule = Every(1)
        ticks = 0

        def tick(self) -> None:
            type(self).ticks += 1
            if self.ticks % 3 == 0:
                self.beat("41 of 90 files")
            raise ValueError("a bad row")

        def on_error(self, iteration: Iteration) -> None:
            failures.append(iteration.failures)

    failures: list[int] = []
    call_command(Command(), clock=FakeClock(), max_ticks=7, max_failures=4, raise_errors=False)
    assert failures == [1, 2, 1, 2, 3, 1, 2]
