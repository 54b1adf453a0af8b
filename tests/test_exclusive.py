"""Exclusive jobs hold a claim while they run."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from daemonkit import BaseDaemonCommand, Cron, Every, StaleEpoch, job
from daemonkit.connections.holding import close_all
from daemonkit.models import Claim, Run
from daemonkit.testing import FakeClock
from lab.servers import Server
from tests.kit.aliases import MakeAlias
from tests.kit.simulated import wall

HOURLY = Cron("0 * * * *")
NOON = wall("2026-03-02 12:00")
NAME = "test_exclusive.report"


def live(command: BaseDaemonCommand, **options: Any) -> None:
    clock = FakeClock(NOON - 60)
    call_command(command, clock=clock, raise_errors=False, **{"pulse": 60, **options})


def held_by_another(database: str, holder: str = "elsewhere:1:token") -> None:
    Claim.objects.using(database).create(
        name=NAME, holder=holder, epoch=5, renewals=1, seconds=1.0, touched="2100-01-01T00:00:00Z"
    )


class Report(BaseDaemonCommand):
    lease = 1.0

    @job(HOURLY, exclusive=True)
    def report(self) -> None: ...


def test_a_run_holds_the_claim_and_gives_it_back(database: str) -> None:
    seen = []

    class Command(Report):
        @job(HOURLY, exclusive=True)
        def report(self) -> None:
            seen.append(Claim.objects.using(database).get(name=NAME).holder)

    live(Command(), max_ticks=1)
    assert seen
    assert seen[0]
    assert Claim.objects.using(database).get(name=NAME).holder == ""


def test_once_takes_the_claim_of_a_process_that_is_dead(database: str) -> None:
    held_by_another(database)
    call_command(Report(), once=True, job=["report"], clock=FakeClock(NOON))
    assert [row.status for row in Run.objects.using(database).all()] == ["ran"]


def test_a_run_that_has_lost_its_claim_commits_no_guarded_write(database: str) -> None:
    raised = []

    class Command(Report):
        @job(HOURLY, exclusive=True)
        def report(self) -> None:
            Claim.objects.using(database).update(holder="other:1:x", epoch=1 << 60)
            try:
                with self.guarded():
                    pass
            except StaleEpoch as error:
                raised.append(error)

    live(Command(), max_ticks=1)
    assert len(raised) == 1


def test_a_claim_that_another_has_taken_cuts_the_work(database: str) -> None:
    """The thread can open no connection until its work has ended."""
    ends = []

    class Command(Report):
        @job(HOURLY, exclusive=True)
        def report(self) -> None:
            Claim.objects.using(database).update(holder="other:1:x", epoch=1 << 60)
            try:
                while self.wait(0.05) and self.life.clock.moment():
                    threading.Event().wait(0.05)
                    Claim.objects.using(database).count()
            except Exception as error:
                ends.append(str(error))
                raise

    live(Command(), max_ticks=1)
    assert len(ends) == 1
    assert Run.objects.using(database).get().status == "failed"
    assert Claim.objects.using(database).get(name=NAME).holder == "other:1:x"


def test_an_added_job_that_is_exclusive_needs_the_tables(
    server: Server, alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "DAEMONKIT", {"database": alias(server)}, raising=False)

    class Command(BaseDaemonCommand):
        def add_jobs(self, scheduler: Any) -> None:
            scheduler.add_job(print, Every(seconds=60), id="feed-1", exclusive=True)

    with pytest.raises(CommandError, match=r"run `manage.py migrate daemonkit") as refused:
        live(Command(), max_seconds=70)
    assert refused.value.returncode == 78
    close_all()


def test_an_added_job_that_is_exclusive_holds_its_claim_too(database: str) -> None:
    seen: list[Any] = []

    class Command(BaseDaemonCommand):
        def add_jobs(self, scheduler: Any) -> None:
            scheduler.add_job(self.fetch, Every(seconds=60), id="feed-1", exclusive=True)

        def fetch(self) -> None:
            claim = Claim.objects.using(database).get(name="test_exclusive.feed-1")
            seen.append(claim.holder)

    for _ in range(2):  # the second life finds the due time taken
        live(Command(), max_seconds=70)
    assert len(seen) == 1
    assert seen[0]
    assert Claim.objects.using(database).get(name="test_exclusive.feed-1").holder == ""
    assert [row.status for row in Run.objects.using(database).all()] == ["ran"]
