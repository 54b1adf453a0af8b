"""``self.due``: when the current tick or run was due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command

from daemonkit import BaseDaemonCommand, Cron, Every, Poll, Pool, job
from daemonkit.schedules.base import Schedule
from daemonkit.testing import FakeClock

SHANGHAI = ZoneInfo("Asia/Shanghai")
START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Noting(BaseDaemonCommand):
    schedule: Schedule = Cron("0 3 * * *", timezone="Asia/Shanghai")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def tick(self) -> None:
        self.seen.append(self.due)


def due_times(daemon: Noting, ticks: int = 2) -> list[Any]:
    call_command(daemon, max_ticks=ticks, clock=FakeClock(START))
    assert daemon.due is None
    return daemon.seen


def test_it_is_the_time_of_the_schedule_in_its_zone() -> None:
    found = due_times(Noting())
    assert found == [datetime(2026, 3, day, 3, 0, tzinfo=SHANGHAI) for day in (3, 4)]
    assert {each.tzinfo for each in found} == {SHANGHAI}


def test_for_an_interval_it_is_in_the_projects_zone() -> None:
    class Hourly(Noting):
        schedule = Every(hours=1)

    assert due_times(Hourly()) == [START, START + timedelta(hours=1)]


def test_a_poller_has_none() -> None:
    class Polling(Noting):
        schedule = Poll(idle=60)

    assert due_times(Polling()) == [None, None]


@pytest.mark.parametrize("where", ["job", "pool", "async"])
def test_a_job_its_pool_and_its_coroutine_see_it(where: str) -> None:
    class Jobs(BaseDaemonCommand):
        ledger = False
        seen: list[Any]

    def note(self: Any) -> None:
        self.seen.append(self.due)

    def in_pool(self: Any) -> None:
        with Pool(1) as pool:
            pool.submit(note, self).result()

    async def in_coroutine(self: Any) -> None:
        note(self)

    method = {"job": note, "pool": in_pool, "async": in_coroutine}[where]
    Jobs.nightly = job(Cron("0 3 * * *", timezone="Asia/Shanghai"))(method)  # type: ignore[attr-defined]
    daemon = Jobs()
    daemon.seen = []
    call_command(daemon, max_ticks=2, clock=FakeClock(START))
    assert daemon.seen == [datetime(2026, 3, day, 3, 0, tzinfo=SHANGHAI) for day in (3, 4)]
