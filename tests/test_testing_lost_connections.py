"""``lost_connections()``: sessions that are really lost, at the moment that a test chooses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import DatabaseError, connections, transaction

from daemonkit import fresh_connections
from daemonkit.errors import Problem, classify
from daemonkit.testing import Loss, lost_connections
from lab.servers import Server
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import note

Read = Callable[[], list[str]]


@pytest.fixture(params=["mariadb", "postgres", "postgres pool", "sqlite"])
def probe(request: pytest.FixtureRequest, alias: MakeAlias) -> str:
    """An alias on each database, and PostgreSQL behind Django's pool."""
    kind, _, pool = request.param.partition(" ")
    server: Server | None = None if kind == "sqlite" else request.getfixturevalue(kind)
    if pool:
        return alias(server, OPTIONS={"pool": {"min_size": 1, "max_size": 2}})
    return alias(server, CONN_MAX_AGE=None)


@pytest.fixture
def noted(probe: str) -> Read:
    """The rows that are there."""

    def read() -> list[str]:
        with fresh_connections, connections[probe].cursor() as cursor:
            cursor.execute("SELECT note FROM entry ORDER BY id")
            return [row[0] for row in cursor.fetchall()]

    return read


def write(probe: str, text: str) -> None:
    with fresh_connections, transaction.atomic(using=probe):
        note(probe, text)


def test_a_unit_of_work_survives_what_was_lost_while_idle(probe: str, noted: Read) -> None:
    write(probe, "before")
    with lost_connections(using=probe) as losing:
        write(probe, "after")
    assert losing.count >= 1
    assert noted() == ["before", "after"]


def test_bare_django_does_not(probe: str) -> None:
    note(probe, "before")
    with lost_connections(using=probe), pytest.raises(DatabaseError):
        note(probe, "after")


def test_the_statement_that_is_named_loses_its_session_and_has_no_effect(
    probe: str, noted: Read
) -> None:
    with lost_connections(Loss.QUERY, using=probe) as losing:
        with pytest.raises(DatabaseError):
            write(probe, "lost")
        write(probe, "again")
    assert losing.count == 1
    assert "INSERT" in losing.statements[0] or "BEGIN" in losing.statements[0]
    write(probe, "later")
    assert noted() == ["again", "later"]


def test_a_query_can_be_lost_after_it_took_effect(probe: str, noted: Read) -> None:
    with lost_connections(Loss.QUERY, using=probe, applied=True), pytest.raises(DatabaseError):
        with fresh_connections:
            note(probe, "applied")
    assert noted() == ["applied"]


@pytest.mark.parametrize("applied", [True, False])
def test_a_commit_is_lost_with_an_outcome_that_the_client_cannot_know(
    probe: str, noted: Read, applied: bool
) -> None:
    called: list[str] = []
    with lost_connections(Loss.COMMIT, using=probe, applied=applied) as losing:
        with pytest.raises(DatabaseError), fresh_connections, transaction.atomic(using=probe):
            note(probe, "x")
            transaction.on_commit(lambda: called.append("x"), using=probe)
    assert losing.statements == ["COMMIT"]
    assert noted() == (["x"] if applied else [])
    assert not called


def test_after_so_many_others_so_many_are_lost(probe: str, noted: Read) -> None:
    with lost_connections(Loss.COMMIT, using=probe, after=1, times=2, applied=False) as losing:
        for text in "abcd":
            try:
                write(probe, text)
            except DatabaseError:
                continue
    assert losing.count == 2
    assert noted() == ["a", "d"]


@pytest.mark.parametrize("moment", [Loss.QUERY, Loss.COMMIT])
def test_a_server_calls_what_was_lost_a_lost_connection(
    alias: MakeAlias, server: Server, moment: Loss
) -> None:
    name = alias(server)
    with lost_connections(moment, using=name), pytest.raises(DatabaseError) as raised:
        write(name, "x")
    assert classify(raised.value) is Problem.LOST


def test_in_a_transaction_it_loses_nothing_and_says_what_to_do(probe: str) -> None:
    with transaction.atomic(using=probe):
        note(probe, "kept")
        with pytest.raises(RuntimeError, match="TransactionTestCase"):
            with lost_connections(using=probe):
                pass


@pytest.mark.django_db(transaction=True)
def test_a_database_in_memory_is_refused_with_advice() -> None:
    with pytest.raises(RuntimeError, match="is in memory"), lost_connections():
        pass
