"""Only connections that may be broken are dropped after a unit of work. On real servers."""

from __future__ import annotations

import contextlib
import gc
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import MySQLdb.cursors
import pytest
from django.db import (
    DataError,
    Error,
    IntegrityError,
    OperationalError,
    connections,
    transaction,
)
from django.db.backends.signals import connection_created
from django.dispatch import Signal

from daemonkit import fresh_connections
from daemonkit.connections.unit_end import forget_warning
from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias, Setup
from tests.kit.sessions import is_gone, kill, kill_all, note, notes, run, session


@pytest.mark.usefixtures("between")
def test_a_unit_that_ends_in_a_database_error_costs_its_connection_and_only_that(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with pytest.raises(OperationalError), fresh_connections:
        first = session(alias)
        raise OperationalError("of whatever number")
    eventually(is_gone(server, first))
    assert f"connection {alias!r} dropped" in caplog.text
    with fresh_connections:
        assert session(alias) != first


def test_a_database_error_behind_a_projects_own_error_counts_too(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with pytest.raises(KeyError), fresh_connections:
        first = session(probe)
        try:
            run(probe, "SELECT nonsense")
        except Error as error:
            raise KeyError("mine") from error
    eventually(is_gone(server, first))


def test_a_connection_that_the_failed_unit_did_not_use_is_kept(
    server: Server, alias: MakeAlias
) -> None:
    used, unused = alias(server, "one", CONN_MAX_AGE=None), alias(server, "two", CONN_MAX_AGE=None)
    with fresh_connections:
        session(used)
        kept = session(unused)
    with pytest.raises(OperationalError), fresh_connections:
        session(used)
        raise OperationalError
    with fresh_connections:
        assert session(unused) == kept


def test_an_ordinary_exception_costs_no_connection(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with pytest.raises(ValueError), fresh_connections:
        first = session(probe)
        raise ValueError
    with fresh_connections:
        assert session(probe) == first


def test_an_interrupt_costs_the_connection(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with pytest.raises(KeyboardInterrupt), fresh_connections, transaction.atomic(probe):
        first = session(probe)
        raise KeyboardInterrupt
    eventually(is_gone(server, first))


def test_a_server_that_became_read_only_is_left_for_a_new_connection(
    postgres: Server, alias: MakeAlias
) -> None:
    probe = alias(postgres, CONN_MAX_AGE=None)
    with pytest.raises(Error, match="read-only"), fresh_connections:
        first = session(probe)
        run(probe, "SET default_transaction_read_only = on")
        note(probe, "refused")
    with fresh_connections:
        note(probe, "kept")
        assert session(probe) != first


# A wrapper is closed by its own close()

ENGINES = {
    "mariadb": "tests.kit.engines.tenants_mysql",
    "postgres": "tests.kit.engines.tenants_postgres",
}
TENANT = {"mariadb": "SELECT @tenant", "postgres": "SHOW application_name"}


@pytest.mark.parametrize("kind", ["mariadb", "postgres"])
@pytest.mark.usefixtures("between")
def test_an_engine_with_its_own_state_resets_it_after_each_failure(
    kind: str, request: pytest.FixtureRequest, alias: MakeAlias
) -> None:
    """More often than its pool has connections."""
    probe = alias(request.getfixturevalue(kind), ENGINE=ENGINES[kind], CONN_MAX_AGE=None)

    def tenant() -> object:
        with connections[probe].cursor() as cursor:
            cursor.execute(TENANT[kind])
            return cursor.fetchone()[0]

    for _ in range(4):
        with pytest.raises(Error), fresh_connections:
            assert tenant() == "acme"
            run(probe, "SELECT nonsense")
        with fresh_connections, transaction.atomic(probe):
            assert tenant() == "acme"
        with fresh_connections:
            transaction.atomic(probe).__enter__()
            assert tenant() == "acme"
    connections[probe].close()


def test_psycopgs_pool_never_lends_a_connection_again_after_a_cut(
    postgres: PostgreSQL, alias: MakeAlias
) -> None:
    probe = alias(postgres, OPTIONS={"pool": {"min_size": 1, "max_size": 2}})
    for _ in range(6):
        with pytest.raises(Error), fresh_connections:
            run(probe, "SELECT nonsense")
        session(probe)  # outside of a unit of work: nothing of ours looks at it before its use
        connections[probe].close()
    assert connections[probe].pool.get_stats()["pool_size"] <= 2


def test_objects_of_a_failed_unit_are_freed_without_the_garbage_collector(
    server: Server, alias: MakeAlias
) -> None:
    """Also the connection: a pool may count the connections that still exist."""
    probe = alias(server, CONN_MAX_AGE=None)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(Error), fresh_connections:
            with connections[probe].cursor() as cursor:
                raw = weakref.ref(connections[probe].connection)
                cursor.execute("SELECT nonsense")
        del cursor
        with fresh_connections:
            session(probe)
        assert raw() is None
    finally:
        gc.enable()


# An error is remembered, even if the code that made the query caught it


@pytest.fixture(params=["a block", "a function", "between signals"])
def unit(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Return ``unit(work)``, which runs the work as a unit of work of one of several forms."""
    started, finished = Signal(), Signal()
    undo = fresh_connections.between(started, finished)

    def by_signals(work: Callable[[], None]) -> None:
        started.send(None)
        work()
        finished.send(None)

    def by_block(work: Callable[[], None]) -> None:
        with fresh_connections:
            work()

    doors = {"a block": by_block, "between signals": by_signals}
    yield doors.get(request.param, lambda work: fresh_connections(work)())
    undo()


READ_ONLY = {
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "postgresql": "SET default_transaction_read_only = on",
}


def test_a_read_only_session_is_dropped_even_if_the_error_was_caught(
    setup: Setup, unit: Callable[[Callable[[], None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    seen: list[int] = []

    def write() -> None:
        seen.append(session(alias))
        run(alias, READ_ONLY[connections[alias].vendor])
        with contextlib.suppress(Error), transaction.atomic(alias):
            note(alias, "refused")

    unit(write)
    assert f"connection {alias!r} dropped: the unit of work found it read-only" in caplog.text
    eventually(is_gone(server, *seen))
    unit(lambda: note(alias, "stored"))
    assert notes(server) == ["stored"]


def test_the_log_says_that_a_session_was_lost_not_that_its_transaction_was_left_open(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        run(alias, "BEGIN")
        kill(server, session(alias))
        with contextlib.suppress(Error):
            note(alias, "lost")
    assert f"connection {alias!r} dropped: the unit of work lost it" in caplog.text
    assert "left a transaction open" not in caplog.text


def test_a_loss_that_no_query_noticed_is_logged_too(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        run(alias, "BEGIN")
        kill(server, session(alias))
    assert f"connection {alias!r} dropped: the unit of work lost it" in caplog.text


# The error of one connection does not affect another


def test_a_healthy_connection_is_not_blamed_for_the_error_of_another(
    server: Server, alias: MakeAlias, caplog: pytest.LogCaptureFixture
) -> None:
    ill, well = alias(server, "one", CONN_MAX_AGE=None), alias(server, "two", CONN_MAX_AGE=None)
    with pytest.raises(Error), fresh_connections:
        kept = session(well)
        run(ill, "SELECT nonsense")
    assert "connection 'one' dropped" in caplog.text
    assert "'two'" not in caplog.text
    with fresh_connections:
        assert session(well) == kept


@pytest.fixture
def unwarned() -> Iterator[None]:
    """Forget the warning about a kept connection, which is given once an hour."""
    forget_warning()
    yield
    forget_warning()


@pytest.mark.usefixtures("unwarned")
@pytest.mark.parametrize("kept", ["a cursor", "the driver's connection"])
def test_a_kept_cursor_of_a_lost_connection_is_warned_of_and_costs_no_healthy_one(
    server: Server, alias: MakeAlias, caplog: pytest.LogCaptureFixture, kept: str
) -> None:
    """Such as one that a daemon opened in lifespan() and uses in each tick."""
    probe = alias(server, CONN_MAX_AGE=None)
    with fresh_connections:
        first = session(probe)
        cursor = connections[probe].cursor()
        raw = connections[probe].connection
    kill(server, first)
    with fresh_connections:
        second = session(probe)
    for _ in range(2):
        with pytest.raises((Error, connections[probe].Database.Error)), fresh_connections:
            assert session(probe) == second
            (cursor if kept == "a cursor" else raw.cursor()).execute("SELECT 1")
    with fresh_connections:
        assert session(probe) == second
    assert "dropped" not in caplog.text
    hints = [record for record in caplog.records if "as from lifespan()" in record.getMessage()]
    assert len(hints) == 1


# The session is kept after errors that do not concern it

DUPLICATE = "INSERT INTO entry (id, note) VALUES (1, 'twice')"
TOO_LONG = f"INSERT INTO entry (note) VALUES ('{'x' * 300}')"


@pytest.mark.parametrize("sql", [DUPLICATE, TOO_LONG], ids=["IntegrityError", "DataError"])
@pytest.mark.parametrize("within", ["autocommit", "atomic()", "BEGIN"])
@pytest.mark.usefixtures("between")
def test_after_an_integrity_or_data_error_the_session_is_rolled_back_and_kept_without_a_warning(
    setup: Setup, caplog: pytest.LogCaptureFixture, sql: str, within: str
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        run(alias, "INSERT INTO entry (id, note) VALUES (1, 'once')")
    seen = set()
    for _ in range(3):
        block = transaction.atomic(alias) if within == "atomic()" else contextlib.nullcontext()
        with pytest.raises((IntegrityError, DataError)), fresh_connections, block:
            seen.add(session(alias))
            if within == "BEGIN":
                run(alias, "BEGIN")
            if within != "autocommit":
                run(alias, "INSERT INTO entry (id, note) VALUES (9, 'rolled back')")
            run(alias, sql)
        with fresh_connections, transaction.atomic(alias):
            seen.add(session(alias))
    is_pooled = connections[alias].settings_dict["OPTIONS"].get("pool")
    assert len(seen) <= (2 if is_pooled else 1)  # what is given back is tidied in a thread
    assert notes(server) == ["once"]
    assert not caplog.records


def test_a_session_that_an_integrity_error_kept_is_validated_before_its_next_query(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with fresh_connections:
        run(probe, "INSERT INTO entry (id, note) VALUES (1, 'once')")
    with pytest.raises(IntegrityError), fresh_connections:
        first = session(probe)
        run(probe, DUPLICATE)
    kill(server, first)
    with fresh_connections:
        assert session(probe) != first


def test_an_operational_error_before_the_integrity_error_still_costs_the_connection(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with fresh_connections:
        run(probe, "INSERT INTO entry (id, note) VALUES (1, 'once')")
    with pytest.raises(IntegrityError), fresh_connections:
        first = session(probe)
        try:
            run(probe, "SELECT nonsense")
        except Error:
            run(probe, DUPLICATE)
    eventually(is_gone(server, first))


# Unusual states of a driver's connection


@pytest.mark.parametrize("rows", [5, 20000])
def test_rows_left_unread_on_an_unbuffered_cursor_fail_no_later_unit(
    mariadb: Server, alias: MakeAlias, rows: int
) -> None:
    options = {"cursorclass": MySQLdb.cursors.SSCursor}
    probe = alias(mariadb, CONN_MAX_AGE=None, OPTIONS=options)
    with fresh_connections:
        left = connections[probe].cursor()
        left.execute(f"SELECT seq FROM seq_1_to_{rows}")
        assert left.fetchone() == (1,)
    for _ in range(2):
        with fresh_connections:
            session(probe)


@pytest.mark.usefixtures("between")
def test_rows_left_unread_on_a_cursor_of_the_driver_fail_no_later_unit(
    mariadb: Server, alias: MakeAlias
) -> None:
    probe = alias(mariadb, CONN_MAX_AGE=None)
    with fresh_connections:
        session(probe)
        left = connections[probe].connection.cursor(MySQLdb.cursors.SSCursor)
        left.execute("SELECT seq FROM seq_1_to_5")
        assert left.fetchone() == (1,)
    with fresh_connections:
        session(probe)


@pytest.mark.parametrize("when", ["between units", "in a unit"])
@pytest.mark.usefixtures("between")
def test_a_handle_that_was_closed_behind_djangos_back_fails_no_later_unit(
    setup: Setup, when: str
) -> None:
    _, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        session(alias)
        if when == "in a unit":
            connections[alias].connection.close()
    if connections[alias].connection is not None and when == "between units":
        connections[alias].connection.close()
    with fresh_connections:
        session(alias)


def test_a_closed_handle_whose_descriptor_was_reused_is_not_trusted(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with fresh_connections:
        session(probe)
    connections[probe].connection.close()
    with socket.create_server(("127.0.0.1", 0)), fresh_connections:  # quiet, of the same number
        session(probe)


def test_a_session_that_the_driver_has_silently_replaced_is_not_used(
    mariadb: MariaDB, alias: MakeAlias
) -> None:
    """It would lack what a receiver of connection_created has set."""

    def prepare(connection: Any, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+07:00'")

    engine = "tests.kit.engines.silent_pymysql"
    probe = alias(mariadb, ENGINE=engine, CONN_MAX_AGE=None)
    connection_created.connect(prepare)
    for _ in range(3):
        with fresh_connections, connections[probe].cursor() as cursor:
            cursor.execute("SELECT @@time_zone")
            assert cursor.fetchone() == ("+07:00",)
        kill_all(mariadb)
    connection_created.disconnect(prepare)
