"""Jitter: due times later by a number that is the same each time. And jobs one by one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from daemonkit import BaseDaemonCommand, Cron, Every, Poll, job
from daemonkit.clock import Moment
from daemonkit.jobs.reading import Choice, read
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.jittered import jittered, offset_of
from daemonkit.settings import job_schedules
from daemonkit.settings.schedule import schedule_of
from daemonkit.testing import FakeClock
from tests.kit.simulated import wall

NOON = wall("2026-03-02 12:00")
HALF_PAST = NOON + 1800
HOURLY = Cron("0 * * * *", timezone="UTC")


def times(schedule: Schedule, count: int = 3) -> list[datetime]:
    return list(islice(schedule.upcoming(Moment(0.0, HALF_PAST)), count))


def test_the_offset_is_the_same_each_time_and_within_the_jitter() -> None:
    offsets = {offset_of("shop", "report", f"host{n}", longest=30) for n in range(200)}
    assert len(offsets) > 150
    assert all(0 <= offset < 30 for offset in offsets)
    assert offset_of("shop", "report", "web1", longest=30) == offset_of(
        "shop", "report", "web1", longest=30
    )


@pytest.mark.parametrize("usual", [HOURLY, Every(minutes=5)])
def test_each_due_time_is_later_by_the_offset(usual: Schedule) -> None:
    moved = jittered(usual, 30, "shop", "report", "web1")
    assert moved.offset > 0
    expected = [due + timedelta(seconds=moved.offset) for due in times(usual)]
    assert times(moved) == expected


class Hosts(BaseDaemonCommand):
    @job(HOURLY, jitter=30)
    def alone(self) -> None: ...

    @job(HOURLY, jitter="30s", exclusive=True)
    def together(self) -> None: ...


def offsets() -> dict[str, float]:
    return {each.name: each.schedule.offset for each in schedule_of(Hosts(), {}).jobs}


def test_hosts_differ_but_for_exclusive_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_schedules, "host_name", lambda: "web1")
    first = offsets()
    monkeypatch.setattr(job_schedules, "host_name", lambda: "web2")
    second = offsets()
    assert first["alone"] != second["alone"]
    assert first["together"] == second["together"] > 0


def test_a_run_knows_its_due_time_before_jitter_and_so_does_its_row(database: str) -> None:
    dues: list[str] = []
    starts: list[float] = []
    clock = FakeClock(HALF_PAST)

    class Command(BaseDaemonCommand):
        @job(HOURLY, jitter=600)
        def turn(self) -> None:
            dues.append(f"{self.due:%H:%M:%S}")
            starts.append(clock.moment().wall)

    call_command(Command(), clock=clock, pulse=60, raise_errors=False, max_ticks=2)
    assert dues == ["13:00:00", "14:00:00"]
    assert [f"{row['due']:%H:%M:%S}" for row in reversed(read(Choice()))] == dues
    late = [start - NOON - 3600 * n for n, start in enumerate(starts, 1)]
    assert 0 < late[0] < 600
    assert late[1] == pytest.approx(late[0], abs=0.01)


def test_a_loop_has_jitter_too() -> None:
    starts: list[float] = []
    clock = FakeClock(HALF_PAST)

    class Command(BaseDaemonCommand):
        schedule = HOURLY
        jitter = 600

        def tick(self) -> None:
            starts.append(clock.moment().wall - NOON)
            assert self.due is not None
            assert self.due.minute == 0

    call_command(Command(), clock=clock, pulse=60, max_ticks=2)
    assert 3600 < starts[0] < 4200
    assert starts[1] - starts[0] == pytest.approx(3600, abs=0.01)


@pytest.mark.parametrize(
    ("usual", "longest", "sentence"),
    [
        (Every(seconds=30), 30, "a jitter of 30s is not shorter than the interval of 30s"),
        (HOURLY, 3600, "a jitter of 1h is not shorter than the interval of 1h"),
        (Poll(), 5, "which has no fixed times"),
    ],
)
def test_jitter_that_makes_no_sense_is_refused(usual: Any, longest: float, sentence: str) -> None:
    class Command(BaseDaemonCommand):
        @job(usual, jitter=longest)
        def turn(self) -> None: ...

    with pytest.raises(CommandError, match="job turn: ") as refused:
        call_command(Command())
    assert sentence in str(refused.value)
    assert refused.value.returncode == 2


def daemon_of_two(work: Callable[[], None], *, serial: bool) -> BaseDaemonCommand:
    """A daemon with two jobs that are due together, which both do this."""

    class Command(BaseDaemonCommand):
        @job(Every(seconds=10))
        def first(self) -> None:
            work()

        @job(Every(seconds=10))
        def second(self) -> None:
            work()

    Command.serial = serial
    return Command()


def test_a_serial_daemon_runs_its_jobs_on_one_thread(database: str) -> None:
    threads: list[int] = []
    daemon = daemon_of_two(lambda: threads.append(threading.get_ident()), serial=True)
    call_command(daemon, clock=FakeClock(HALF_PAST), pulse=60, raise_errors=False, max_ticks=6)
    assert len(threads) == 6
    assert len(set(threads)) == 1


def test_other_daemons_run_different_jobs_at_the_same_time(database: str) -> None:
    meeting = threading.Barrier(2, timeout=30)  # neither passes without the other
    daemon = daemon_of_two(lambda: meeting.wait() and None, serial=False)
    call_command(daemon, clock=FakeClock(HALF_PAST), pulse=60, max_ticks=2)
    assert not meeting.broken
