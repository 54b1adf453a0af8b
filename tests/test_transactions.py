"""A caller's transaction is never touched. One that a unit of work began ends with the unit."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import Error, connections, transaction
from django.db.backends.signals import connection_created
from django.dispatch import Signal
from django.test import TestCase

from daemonkit import fresh_connections
from daemonkit.connections.holding import close_idle, kept_between_units
from daemonkit.connections.sessions import answers_in_transaction, has_savepoints
from lab.servers import MariaDB, Server
from tests.kit.aliases import MakeAlias, Setup
from tests.kit.sessions import kill, note, notes, run, session

AGES = [0, 300, None]
BEGINS = ["BEGIN", "START TRANSACTION", "/* mine */ BEGIN", "-- mine\nbegin"]


# A caller's transaction is left alone


@fresh_connections
def handler(alias: str, text: str) -> None:
    note(alias, text)


@pytest.mark.parametrize("max_age", AGES)
def test_a_handler_called_inside_a_callers_transaction_does_not_lose_the_callers_row(
    setup: Setup, max_age: int | None
) -> None:
    server, alias = setup(CONN_MAX_AGE=max_age)
    committed = []
    with transaction.atomic(alias):
        before = session(alias)
        note(alias, "caller's")
        transaction.on_commit(lambda: committed.append(True), using=alias)
        handler(alias, "handler's")
        assert session(alias) == before
    assert notes(server) == ["caller's", "handler's"]
    assert committed == [True]
    connections[alias].close()


def test_a_handler_that_fails_inside_a_callers_transaction_leaves_it_to_the_caller(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server)
    with transaction.atomic(probe):
        note(probe, "caller's")
        with pytest.raises(Error), fresh_connections, transaction.atomic(probe):
            run(probe, "SELECT nonsense")
        note(probe, "after")
    assert notes(server) == ["caller's", "after"]
    connections[probe].close()


def test_a_callers_manual_transaction_survives(server: Server, alias: MakeAlias) -> None:
    probe = alias(server)
    transaction.set_autocommit(False, using=probe)
    note(probe, "caller's")
    handler(probe, "handler's")
    transaction.commit(using=probe)
    transaction.set_autocommit(True, using=probe)
    assert notes(server) == ["caller's", "handler's"]
    connections[probe].close()


def test_only_the_outermost_unit_of_work_cleans(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, CONN_MAX_AGE=0)
    with fresh_connections:
        first = session(probe)
        handler(probe, "inner")
        assert session(probe) == first


@pytest.mark.parametrize("kind", ["mariadb", "postgres", None])
def test_a_users_testcase_may_call_a_unit_of_work(
    kind: str | None, request: pytest.FixtureRequest, alias: MakeAlias
) -> None:
    probe = alias(request.getfixturevalue(kind) if kind else None)

    def count() -> int:
        with connections[probe].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM entry")
            return int(cursor.fetchone()[0])

    class Case(TestCase):
        databases = {probe}

        def test_one(self) -> None:
            note(probe, "fixture")
            handler(probe, "tick's")
            assert count() == 2

        def test_two(self) -> None:
            handler(probe, "tick's")
            assert count() == 1

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun == 2
    assert not result.errors + result.failures
    assert count() == 0
    connections[probe].close()


# It is also left alone if it was begun in SQL

Handle = Callable[[str], None]


class Service:
    @fresh_connections
    def method(self, alias: str) -> None:
        note(alias, "handler's")


@pytest.fixture(params=["block", "function", "method", "coroutine", "signals", "nested", "loop"])
def handle(request: pytest.FixtureRequest) -> Iterator[Handle]:
    """A unit of work that writes the note "handler's", in each of its forms."""
    started, finished = Signal(), Signal()
    undo = fresh_connections.between(started, finished)

    def block(alias: str) -> None:
        with fresh_connections:
            note(alias, "handler's")

    @fresh_connections
    async def coroutine(alias: str) -> None:
        await sync_to_async(note)(alias, "handler's")

    def signals(alias: str) -> None:
        started.send(None)
        note(alias, "handler's")
        finished.send(None)

    def nested(alias: str) -> None:
        with fresh_connections:
            block(alias)

    def loop(alias: str) -> None:
        with kept_between_units():
            block(alias)
            close_idle(1000)

    doors: dict[str, Handle] = {
        "block": block,
        "function": fresh_connections(lambda alias: note(alias, "handler's")),
        "method": Service().method,
        "coroutine": async_to_sync(coroutine),
        "signals": signals,
        "nested": nested,
        "loop": loop,
    }
    yield doors[request.param]
    undo()


def test_a_transaction_that_the_caller_began_in_sql_survives_a_unit_of_work(
    setup: Setup, handle: Handle
) -> None:
    server, alias = setup(CONN_MAX_AGE=0)
    run(alias, "BEGIN")
    note(alias, "caller's")
    before = session(alias)
    handle(alias)
    assert session(alias) == before
    assert notes(server) == []
    run(alias, "COMMIT")
    assert notes(server) == ["caller's", "handler's"]
    connections[alias].close()


@pytest.mark.parametrize("statement", [*BEGINS, "SET autocommit = 0", b"BEGIN", "XA START 'x'"])
def test_a_callers_transaction_on_mariadb_survives_however_it_was_begun(
    mariadb: MariaDB, alias: MakeAlias, statement: str
) -> None:
    probe = alias(mariadb)
    run(probe, statement)
    note(probe, "caller's")
    handler(probe, "handler's")
    assert notes(mariadb) == []
    if "XA" in str(statement):
        run(probe, "XA END 'x'")
        run(probe, "XA COMMIT 'x' ONE PHASE")
    else:
        run(probe, "COMMIT")
    assert notes(mariadb) == ["caller's", "handler's"]
    connections[probe].close()


def test_a_transaction_that_a_caller_began_in_sqlite_survives_a_unit_of_work(
    alias: MakeAlias, handle: Handle
) -> None:
    probe = alias(None)
    run(probe, "BEGIN")
    note(probe, "caller's")
    handle(probe)
    run(probe, "COMMIT")
    path = connections[probe].settings_dict["NAME"]
    with contextlib.closing(sqlite3.connect(path)) as other:
        rows = other.execute("SELECT note FROM entry ORDER BY id").fetchall()
    assert rows == [("caller's",), ("handler's",)]
    connections[probe].close()


def test_a_transaction_that_was_begun_before_daemonkit_observed_it_belongs_to_the_caller(
    mariadb: MariaDB, alias: MakeAlias
) -> None:
    """If daemonkit is not in INSTALLED_APPS, it observes a thread from its first unit on."""
    probe = alias(mariadb)
    connection_created.disconnect(dispatch_uid="daemonkit.connections.units")

    def work() -> None:
        run(probe, "BEGIN")
        note(probe, "caller's")
        handler(probe, "handler's")
        assert notes(mariadb) == []
        run(probe, "COMMIT")
        connections[probe].close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()
    assert notes(mariadb) == ["caller's", "handler's"]


def test_a_caller_whose_transaction_is_lost_gets_an_error(setup: Setup) -> None:
    """Otherwise it would commit only the second half of its work."""
    server, alias = setup(CONN_MAX_AGE=None)
    run(alias, "BEGIN")
    note(alias, "caller's")
    kill(server, session(alias))
    with pytest.raises(Error):
        handler(alias, "handler's")
    assert notes(server) == []
    connections[alias].close()


def test_a_session_that_is_lost_after_a_harmless_statement_is_replaced(setup: Setup) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    run(alias, "SET TIME ZONE '+7'" if server.vendor == "postgresql" else "SET @x = 1")
    kill(server, session(alias))
    handler(alias, "handler's")
    assert notes(server) == ["handler's"]
    connections[alias].close()


# A transaction that a unit of work began in SQL ends with the unit


@pytest.mark.parametrize("statement", BEGINS)
@pytest.mark.usefixtures("between")
def test_a_begin_that_a_unit_left_open_is_never_committed_by_a_later_one(
    setup: Setup, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        run(alias, statement)
        note(alias, "abandoned")
    with fresh_connections, transaction.atomic(alias):
        note(alias, "kept")
    assert notes(server) == ["kept"]
    assert "left a transaction open" in caplog.text


def test_autocommit_switched_off_in_sql_does_not_outlive_the_unit(
    mariadb: Server, alias: MakeAlias
) -> None:
    probe = alias(mariadb, CONN_MAX_AGE=None)
    with fresh_connections:
        run(probe, "SET autocommit=0")
        note(probe, "abandoned")
    with fresh_connections:
        note(probe, "kept")
    assert notes(mariadb) == ["kept"]


def test_a_transaction_that_was_ended_in_sql_costs_no_connection(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with fresh_connections:
        first = session(probe)
        for statement in ("BEGIN", "INSERT INTO entry (note) VALUES ('kept')", "COMMIT"):
            run(probe, statement)
    with fresh_connections:
        assert session(probe) == first
    assert notes(server) == ["kept"]


@pytest.mark.usefixtures("between")
def test_an_atomic_block_that_was_never_left_does_not_break_later_units(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    called = []
    with fresh_connections:
        transaction.atomic(alias).__enter__()
        note(alias, "abandoned")
        transaction.on_commit(lambda: called.append("late"), using=alias)
    assert "left an atomic() block open" in caplog.text
    with fresh_connections, transaction.atomic(alias):
        note(alias, "kept")
    assert notes(server) == ["kept"]
    assert not called


@pytest.mark.usefixtures("between")
def test_autocommit_left_off_is_rolled_back_and_named(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        transaction.set_autocommit(False, using=alias)
        note(alias, "abandoned")
    with fresh_connections:
        note(alias, "kept")
    assert notes(server) == ["kept"]
    assert f"connection {alias!r} dropped: the unit of work left autocommit off" in caplog.text


@pytest.fixture
def half(mariadb: MariaDB) -> Iterator[str]:
    """A stored procedure that begins a transaction, and leaves it open."""
    mariadb.execute(
        "CREATE PROCEDURE half() BEGIN START TRANSACTION;"
        " INSERT INTO entry (note) VALUES ('abandoned'); END"
    )
    yield "half"
    mariadb.execute("DROP PROCEDURE half")


@pytest.mark.parametrize("how", ["callproc()", "CALL", "callproc() of a debug cursor"])
@pytest.mark.usefixtures("between")
def test_a_transaction_that_a_stored_procedure_left_open_is_never_committed(
    mariadb: MariaDB, alias: MakeAlias, half: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    probe = alias(mariadb, CONN_MAX_AGE=None)
    connections[probe].force_debug_cursor = "debug" in how
    with fresh_connections, connections[probe].cursor() as cursor:
        if how == "CALL":
            cursor.execute(f"CALL {half}()")
        else:
            cursor.callproc(half)
    with fresh_connections, transaction.atomic(probe):
        note(probe, "kept")
    assert notes(mariadb) == ["kept"]
    assert "left a transaction open" in caplog.text


def test_a_transaction_that_a_callers_stored_procedure_began_belongs_to_the_caller(
    mariadb: MariaDB, alias: MakeAlias, half: str
) -> None:
    probe = alias(mariadb)
    with connections[probe].cursor() as cursor:
        cursor.callproc(half)
    handler(probe, "handler's")
    assert notes(mariadb) == []
    run(probe, "COMMIT")
    assert notes(mariadb) == ["abandoned", "handler's"]
    connections[probe].close()


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN; INSERT INTO entry (note) VALUES ('kept'); COMMIT",
        "BEGIN NOT ATOMIC INSERT INTO entry (note) VALUES ('kept'); END",
        "SET @x = 1; INSERT INTO entry (note) VALUES ('kept')",
        "INSERT INTO entry (note) VALUES ('kept'); -- BEGIN",
        b"INSERT INTO entry (note) VALUES ('kept')",
    ],
)
@pytest.mark.usefixtures("between")
def test_statements_that_leave_nothing_open_cost_no_connection_and_log_nothing(
    mariadb: MariaDB, alias: MakeAlias, sql: str, caplog: pytest.LogCaptureFixture
) -> None:
    probe = alias(mariadb, CONN_MAX_AGE=None)
    with fresh_connections:
        first = session(probe)
        run(probe, sql)
    with fresh_connections:
        assert session(probe) == first
    assert notes(mariadb) == ["kept"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("statements", "is_open"),
    [
        ([], False),
        (["BEGIN"], True),
        (["START TRANSACTION WITH CONSISTENT SNAPSHOT"], True),
        (["BEGIN", "COMMIT"], False),
        (["SET autocommit = 0", "SELECT * FROM entry"], True),
        (["XA START 'x'"], True),
        (["LOCK TABLES entry WRITE"], False),
    ],
)
def test_both_ways_to_ask_for_a_transaction_agree(
    mariadb: MariaDB, statements: list[str], is_open: bool
) -> None:
    """MySQL has no variable for this. A savepoint tells it, on MariaDB as well."""
    with contextlib.closing(mariadb.connect()) as raw:
        for sql in statements:
            raw.query(sql)
            raw.store_result()
        assert answers_in_transaction(raw) is is_open
        assert has_savepoints(raw) is is_open


# Where the settings turn autocommit off


@pytest.mark.parametrize("kind", ["mariadb", "postgres", None])
@pytest.mark.usefixtures("between")
def test_without_autocommit_uncommitted_rows_of_a_unit_are_rolled_back_without_a_warning(
    kind: str | None,
    request: pytest.FixtureRequest,
    alias: MakeAlias,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server: Server | None = request.getfixturevalue(kind) if kind else None
    probe = alias(server, AUTOCOMMIT=False, CONN_MAX_AGE=None)
    raws = []
    for number in range(3):
        with fresh_connections:
            note(probe, f"forgotten {number}")
            raws.append(connections[probe].connection)
        with fresh_connections:
            note(probe, f"kept {number}")
            transaction.commit(using=probe)
    with fresh_connections, connections[probe].cursor() as cursor:
        cursor.execute("SELECT note FROM entry ORDER BY id")
        assert [row[0] for row in cursor.fetchall()] == ["kept 0", "kept 1", "kept 2"]
    assert all(raw is raws[0] for raw in raws)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    connections[probe].close()


def test_without_autocommit_a_callers_uncommitted_row_is_left_alone(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, AUTOCOMMIT=False, CONN_MAX_AGE=0)
    note(probe, "caller's")
    handler(probe, "handler's")
    transaction.commit(using=probe)
    assert notes(server) == ["caller's", "handler's"]
    connections[probe].close()
