"""``--once --due``: due times of the past are run one after the other, each once."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command

from daemonkit import BaseDaemonCommand, Cron, Every, Poll, job
from daemonkit.jobs.reading import Choice, read
from daemonkit.testing import FakeClock
from tests.kit.simulated import wall

NOW = wall("2026-03-05 12:00")
NIGHTLY = Cron("0 3 * * *", timezone="UTC")
ran: list[str] = []
failing: set[str] = set()


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """What earlier tests have run."""
    ran.clear()
    failing.clear()


def note(daemon: BaseDaemonCommand) -> None:
    text = f"{daemon.due:%d %H:%M}"
    ran.append(text)
    if text in failing:
        raise ValueError(text)


class Plain(BaseDaemonCommand):
    @job(NIGHTLY)
    def report(self) -> None:
        note(self)


class Exclusive(BaseDaemonCommand):
    @job(NIGHTLY, exclusive=True, jitter=60)
    def report(self) -> None:
        note(self)


class Atomic(BaseDaemonCommand):
    @job(NIGHTLY, exclusive="atomic")
    def report(self) -> None:
        note(self)


class Loop(BaseDaemonCommand):
    schedule = NIGHTLY
    catch_up = True

    def tick(self) -> None:
        note(self)


KINDS = [Plain, Exclusive, Atomic, Loop]
every_kind = pytest.mark.parametrize("kind", KINDS)


def run(kind: type[BaseDaemonCommand], due: str | None, **options: Any) -> None:
    values = {"once": True, "raise_errors": False, **options}
    call_command(kind(), due=due, clock=FakeClock(NOW), pulse=60, **values)


def states() -> list[str]:
    return [f"{row['due']:%d} {row['status']}" for row in reversed(read(Choice()))]


@every_kind
def test_due_times_of_the_past_run_one_after_the_other(
    database: str, kind: type[BaseDaemonCommand]
) -> None:
    run(kind, "2026-03-01 03:00..2026-03-04 23:00")
    assert ran == ["01 03:00", "02 03:00", "03 03:00", "04 03:00"]
    assert states() == ["01 ran", "02 ran", "03 ran", "04 ran"]


@every_kind
def test_one_that_has_run_is_refused_and_runs_again_with_again(
    database: str, kind: type[BaseDaemonCommand]
) -> None:
    run(kind, "2026-03-03 03:00")
    with pytest.raises(CommandError, match="another process has; --again runs it again") as refused:
        run(kind, "2026-03-03 03:00")
    assert refused.value.returncode == 1
    assert ran == ["03 03:00"]
    run(kind, "2026-03-03 03:00", again=True)
    assert ran == ["03 03:00", "03 03:00"]


@every_kind
def test_one_that_has_failed_runs_without_again(
    database: str, kind: type[BaseDaemonCommand]
) -> None:
    failing.add("03 03:00")
    with pytest.raises(ValueError, match="03 03:00"):
        run(kind, "2026-03-03 03:00")
    failing.clear()
    run(kind, "2026-03-03 03:00")
    assert states() == ["03 ran"]


def test_a_failure_does_not_stop_the_due_times_after_it(database: str) -> None:
    failing.add("02 03:00")
    with pytest.raises(ValueError, match="02 03:00"):
        run(Plain, "2026-03-01 03:00..2026-03-03 03:00")
    assert states() == ["01 ran", "02 failed", "03 ran"]


def test_a_time_with_an_offset_is_understood(database: str) -> None:
    run(Plain, "2026-03-03T11:00+08:00")
    assert ran == ["03 03:00"]


class Intervals(BaseDaemonCommand):
    @job(Every(seconds=30))
    def report(self) -> None: ...


class Polls(BaseDaemonCommand):
    @job(Poll())
    def report(self) -> None: ...


class NoLedger(Plain):
    ledger = False


class NoJobs(BaseDaemonCommand):
    schedule = NIGHTLY

    def tick(self) -> None: ...


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (Plain, {"due": "2026-03-06 03:00"}, "is in the future"),
        (Plain, {"due": "2026-03-01..2026-03-06"}, "is in the future"),
        (Plain, {"due": "2026-03-03 04:00"}, "there is no due time at 2026-03-03 04:00"),
        (Plain, {"due": "yesterday"}, "--due takes a time such as '2026-11-01 03:00'"),
        (Plain, {"due": "2026-03-03 03:00", "once": False}, "say --once, too"),
        (Plain, {"due": None, "again": True}, "--again is for --due"),
        (NoLedger, {"due": "2026-03-03 03:00"}, "--due goes by the rows of the ledger"),
        (Intervals, {"due": "2026-03-03 03:00"}, "which has no due times in the past"),
        (Polls, {"due": "2026-03-03 03:00"}, "which has no due times in the past"),
        (NoJobs, {"due": "2026-03-03 03:00"}, "for loops with catch_up = True"),
    ],
)
def test_bad_input_is_one_sentence(
    kind: type[BaseDaemonCommand], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CommandError) as refused:
        run(kind, **options)
    assert sentence in str(refused.value)
    assert refused.value.returncode == 2
