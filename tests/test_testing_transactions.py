"""Jobs in a test's own transaction: on its thread and its connection, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import transaction
from django.test import TestCase, TransactionTestCase
from shop.models import Supplier

from daemonkit import BaseDaemonCommand, Every, job
from daemonkit.models import Run
from daemonkit.testing import FakeClock, run_due, run_ticks
from lab.servers import Server
from tests.kit.aliases import MakeAlias
from tests.kit.tables import ledger_tables

threads: list[int] = []


class Jobs(BaseDaemonCommand):
    @job(Every(seconds=10))
    def add(self) -> str:
        threads.append(threading.get_ident())
        codes = ",".join(Supplier.objects.order_by("code").values_list("code", flat=True))
        Supplier.objects.create(code=f"S{len(codes)}")
        return codes

    @job(Every(seconds=20), exclusive=True)
    def count(self) -> int:
        threads.append(threading.get_ident())
        return Supplier.objects.count()


class Failing(BaseDaemonCommand):
    ledger = False
    done: list[str] = []

    @job(Every(seconds=10))
    def first(self) -> None:
        raise ValueError("no such supplier")

    @job(Every(seconds=10))
    def second(self) -> None:
        self.done.append("second")


class InATestCase(TestCase):
    def setUp(self) -> None:
        threads.clear()
        Supplier.objects.create(code="ACME")

    def test_jobs_see_the_tests_rows_and_the_test_sees_theirs(self) -> None:
        before = threading.active_count()
        iterations = run_due(Jobs, 10, clock=FakeClock())
        results = [each.result for each in iterations if each.job == "add"]
        assert results == ["ACME", "ACME,S4"]
        assert Supplier.objects.count() == 3
        assert set(threads) == {threading.get_ident()}
        assert threading.active_count() == before

    def test_the_ledger_and_claims_are_on_the_tests_connection(self) -> None:
        run_due(Jobs, 20, clock=FakeClock())
        rows = Run.objects.order_by("due", "job").values_list("job", "status")
        assert list(rows) == [("add", "ran")] * 3 + [("count", "ran")]
        again = run_due(Jobs, 20, clock=FakeClock())  # the same due times, of which one is claimed
        assert [each.job for each in again] == ["add"] * 3

    def test_nothing_is_left_of_other_tests(self) -> None:
        assert not Run.objects.exists()
        assert Supplier.objects.count() == 1

    def test_the_first_job_that_fails_ends_the_daemon(self) -> None:
        with self.assertRaisesMessage(ValueError, "no such supplier"):
            run_ticks(Failing, 4)
        assert Failing.done == []

    def test_without_raise_errors_the_others_go_on(self) -> None:
        call_command(Failing(), max_seconds=25, clock=FakeClock(), raise_errors=False)
        assert Failing.done == ["second"] * 3
        Failing.done.clear()


class InATransactionTestCase(TransactionTestCase):
    def test_jobs_run_on_threads_and_nothing_is_left_open(self) -> None:
        threads.clear()
        run_due(Alone, 10, clock=FakeClock())
        assert threading.get_ident() not in threads
        assert len(threads) == 2


class Alone(BaseDaemonCommand):
    ledger = False

    @job(Every(seconds=10))
    def turn(self) -> None:
        threads.append(threading.get_ident())


@pytest.mark.django_db
def test_the_fixture_db_is_a_test_case_too(daemon: Any) -> None:
    Supplier.objects.create(code="ACME")
    jobs = daemon(Jobs, clock=FakeClock())
    jobs.run_ticks(2)
    assert [iteration.result for iteration in jobs.iterations] == ["ACME", "ACME,S4"]


@pytest.fixture
def ledger(server: Server, alias: MakeAlias, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = alias(server)
    monkeypatch.setattr(settings, "DAEMONKIT", {"database": name}, raising=False)
    with ledger_tables(name):
        yield name


class Noting(BaseDaemonCommand):
    @job(Every(seconds=10), exclusive=True)
    def note(self) -> None: ...

    @job(Every(seconds=10))
    def other(self) -> None: ...


def test_on_a_server_the_ledger_is_rolled_back_with_the_tests_transaction(
    ledger: str, server: Server
) -> None:
    with transaction.atomic(using=ledger):
        run_due(Noting, 10, clock=FakeClock(1000))
        assert Run.objects.using(ledger).count() == 3
        assert len(server.sessions()) == 1
        transaction.set_rollback(True, using=ledger)
    assert Run.objects.using(ledger).count() == 0


def test_a_leader_needs_no_lease_in_the_tests_transaction(ledger: str, server: Server) -> None:
    class Leading(BaseDaemonCommand):
        schedule = Every(seconds=1)
        leader = True

        def tick(self) -> Any:
            return self.epoch

    with transaction.atomic(using=ledger):
        (iteration,) = run_ticks(Leading, 1, leader=True)
        assert iteration.result is None
        assert len(server.sessions()) <= 1
