"""``self.skip()``: a tick, or a run of a job, that has nothing to do this time."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction

from daemonkit import BaseDaemonCommand, Cron, Every, job
from daemonkit.models import Run
from daemonkit.testing import DaemonUnderTest, FakeClock
from tests.kit.simulated import wall

HOURLY = Cron("0 * * * *")
NOON = wall("2026-03-02 12:00")


def live(command: type[BaseDaemonCommand], **options: Any) -> None:
    clock = FakeClock(NOON - 60)
    call_command(command(), clock=clock, pulse=60, raise_errors=False, **options)


def outcomes(database: str) -> list[tuple[str, str, str, str]]:
    found = Run.objects.using(database).order_by("due", "job")
    return [(each.job, each.status, each.reason, each.error) for each in found]


class Shop(BaseDaemonCommand):
    schedule = Every(seconds=10)

    def tick(self) -> str:
        if self.life.last is None:
            self.skip("closed on Sundays")
        return "open"


def test_a_tick_that_skips_is_no_failure_and_the_next_one_is_on_time() -> None:
    shop = DaemonUnderTest(Shop(), clock=FakeClock())
    first, second = shop.run_ticks(2)
    assert (first.error, first.result, first.failures) == (None, None, 0)
    assert second.result == "open"
    assert second.due.monotonic - first.due.monotonic == pytest.approx(10)
    assert [(each.job, each.reason) for each in shop.skipped] == [("", "closed on Sundays")]


def test_the_log_has_the_reason_and_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "daemonkit"):
        call_command(Shop(), max_ticks=1, clock=FakeClock())
    (said,) = (each for each in caplog.records if "did not run" in each.getMessage())
    assert said.getMessage().endswith("did not run: closed on Sundays")
    assert said.levelno == logging.INFO


def test_once_ends_well_if_the_tick_skips() -> None:
    shop = DaemonUnderTest(Shop(), clock=FakeClock())
    shop.run_ticks(1, once=True)
    assert [each.reason for each in shop.skipped] == ["closed on Sundays"]


def test_a_transaction_in_which_it_skips_is_rolled_back(database: str) -> None:
    class Writing(BaseDaemonCommand):
        schedule = Every(seconds=10)

        def tick(self) -> None:
            with transaction.atomic(using=database):
                Run.objects.using(database).create(
                    daemon="writing", job="x", due="2026-01-01T00:00:00Z", status="ran"
                )
                self.skip("not today")

    call_command(Writing(), max_ticks=1, clock=FakeClock())
    assert outcomes(database) == []


class Jobs(BaseDaemonCommand):
    @job(HOURLY)
    def report(self) -> None:
        self.skip("no sales")

    @job(HOURLY, exclusive=True)
    def invoice(self) -> None:
        self.skip("closed on Sundays")

    @job(HOURLY, exclusive=True)
    async def order(self) -> None:
        self.skip("nothing is short")


def test_the_ledger_has_a_jobs_reason_also_where_the_due_time_was_claimed(database: str) -> None:
    live(Jobs, max_ticks=3)
    assert outcomes(database) == [
        ("invoice", "skipped", "decided", "closed on Sundays"),
        ("order", "skipped", "decided", "nothing is short"),
        ("report", "skipped", "decided", "no sales"),
    ]


def test_no_other_process_runs_a_due_time_that_one_decided_to_skip(database: str) -> None:
    ran: list[Any] = []
    live(Jobs, max_ticks=3)

    class Again(Jobs):
        @job(HOURLY, exclusive=True)
        def invoice(self) -> None:
            ran.append(self.due)

        report = order = None  # type: ignore[assignment]

    live(Again, max_ticks=2)
    assert len(ran) == 1  # that of 13:00
    assert outcomes(database)[0] == ("invoice", "skipped", "decided", "closed on Sundays")


def test_once_of_a_job_that_skips_ends_with_0(database: str) -> None:
    call_command(Jobs(), once=True, job=["report"], clock=FakeClock(NOON))
    assert [each[:3] for each in outcomes(database)] == [("report", "skipped", "decided")]
