"""``run_ticks``, ``run_due`` and ``daemon``: a daemon on a clock that passes at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError

from daemonkit import BaseDaemonCommand, Cron, Every, job
from daemonkit.testing import DaemonUnderTest, FakeClock, run_due, run_ticks

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Counting(BaseDaemonCommand):
    schedule = Every(minutes=5)
    ticks = 0

    def tick(self) -> Any:
        self.ticks += 1
        return self.ticks


class Failing(Counting):
    def tick(self) -> Any:
        if super().tick() == 2:
            raise ValueError("no such price")


class Jobs(BaseDaemonCommand):
    ledger = False

    @job(Every(minutes=20))
    def refresh(self) -> None: ...

    @job(Cron("30 * * * *"))
    def report(self) -> str:
        return "written"


def test_ticks_are_run_and_what_they_came_to_is_returned() -> None:
    iterations = run_ticks(Counting, 3, clock=FakeClock(NOON))
    assert [iteration.result for iteration in iterations] == [1, 2, 3]
    assert [f"{iteration.due.utc:%H:%M}" for iteration in iterations] == ["12:00", "12:05", "12:10"]


def test_the_error_of_a_tick_that_failed_is_raised() -> None:
    with pytest.raises(ValueError, match="no such price"):
        run_ticks(Failing, 3)


def test_or_the_daemon_goes_on_as_its_process_would() -> None:
    iterations = run_ticks(Failing, 3, raise_errors=False)
    assert [type(iteration.error) for iteration in iterations] == [
        type(None),
        ValueError,
        type(None),
    ]


def test_all_that_is_due_is_run_up_to_a_moment_and_including_it() -> None:
    iterations = run_due(Jobs, until=datetime(2026, 3, 2, 13, tzinfo=UTC), clock=FakeClock(NOON))
    told = sorted(f"{iteration.due.utc:%H:%M} {iteration.job}" for iteration in iterations)
    assert told == ["12:00 refresh", "12:20 refresh", "12:30 report", "12:40 refresh",
                    "13:00 refresh"]  # fmt: skip


@pytest.mark.parametrize("until", [timedelta(minutes=10), 600])
def test_a_time_from_now_will_do(until: Any) -> None:
    assert len(run_due(Counting, until)) == 3


def test_a_moment_that_has_passed_is_refused() -> None:
    with pytest.raises(ValueError, match="has passed"):
        run_due(Counting, NOON - timedelta(seconds=1), clock=FakeClock(NOON))
    with pytest.raises(ValueError, match="has no time zone"):
        run_due(Counting, datetime(2026, 3, 2), clock=FakeClock(NOON))


def test_the_fixture_makes_a_daemon_that_remembers(
    daemon: Callable[..., DaemonUnderTest],
) -> None:
    jobs = daemon(Jobs, clock=FakeClock(NOON))
    jobs.run_due(timedelta(minutes=30))
    jobs.clock.advance(3600)
    jobs.run_ticks(1)
    assert {iteration.job for iteration in jobs.iterations} == {"refresh", "report"}
    assert jobs.skipped == []


def test_a_skipped_run_is_remembered_with_its_reason() -> None:
    class Long(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=10), grace=5)
        def turn(self) -> None:
            clock.advance(25)

    clock = FakeClock(NOON)
    long = DaemonUnderTest(Long, clock=clock)
    long.run_due(60)
    assert {skipped.job for skipped in long.skipped} == {"turn"}
    assert {str(skipped.reason) for skipped in long.skipped} <= {"grace", "overlap"}
    assert long.skipped


def test_a_daemon_is_found_by_its_name(tmp_path: Any) -> None:
    (iteration,) = run_ticks("import_prices", inbox=tmp_path)
    assert iteration.result == ""
    (iteration,) = run_ticks("time.time", schedule=Every(seconds=1))
    assert iteration.result
    with pytest.raises(CommandError, match="there is no daemon 'import_price'; did you mean"):
        run_ticks("import_price")
