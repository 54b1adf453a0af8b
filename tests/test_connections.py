"""What is promised about connections, on real servers: sessions by their ids, rows by reading."""

from __future__ import annotations

import contextlib
import logging
import threading
import unittest
from collections.abc import Callable, Iterator

import pytest
from django.core.cache import caches
from django.db import Error, IntegrityError, OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from daemonkit import fresh_connections, release_connections
from daemonkit.connections.thread import cut_connections
from daemonkit.connections.units import close_idle, kept_between_units
from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import is_gone, kill, kill_all, note, notes, run, session

AGES = [0, 300, None]


@pytest.fixture(params=["mariadb", "postgres", "postgres pool"])
def setup(request: pytest.FixtureRequest, alias: MakeAlias) -> Callable[..., tuple[Server, str]]:
    """``setup(CONN_MAX_AGE=...)``: a server and an alias on it, for each driver; a pool allows
    nothing but CONN_MAX_AGE=0."""
    kind, _, pool = request.param.partition(" ")
    server: Server = request.getfixturevalue(kind)

    def make(**settings: object) -> tuple[Server, str]:
        if pool:
            settings.update(CONN_MAX_AGE=0, OPTIONS={"pool": {"min_size": 1, "max_size": 2}})
        return server, alias(server, **settings)

    return make


Setup = Callable[..., tuple[Server, str]]


@pytest.fixture(params=[False, True], ids=["units", "loop"])
def between(request: pytest.FixtureRequest) -> Iterator[None]:
    """Units of work on their own, and as a loop runs them."""
    with kept_between_units() if request.param else contextlib.nullcontext():
        yield


# A connection that died between two units costs nothing


@pytest.mark.parametrize("health_checks", [False, True])
@pytest.mark.parametrize("max_age", AGES)
@pytest.mark.usefixtures("between")
def test_a_session_killed_between_units_fails_none(
    setup: Setup, max_age: int | None, health_checks: bool
) -> None:
    server, alias = setup(CONN_MAX_AGE=max_age, CONN_HEALTH_CHECKS=health_checks)
    seen = set()
    for _ in range(4):
        with fresh_connections:
            seen.add(session(alias))
        kill_all(server)
    assert len(seen) == 4


@pytest.mark.parametrize("max_age", AGES)
@pytest.mark.usefixtures("between")
def test_a_unit_that_begins_with_atomic_finds_a_live_connection(
    setup: Setup, max_age: int | None
) -> None:
    server, alias = setup(CONN_MAX_AGE=max_age)
    for text in "abc":
        with fresh_connections, transaction.atomic(alias):
            note(alias, text)
        kill_all(server)
    assert notes(server) == ["a", "b", "c"]


@pytest.mark.usefixtures("between")
def test_a_session_that_the_server_drops_for_idleness_fails_no_unit(setup: Setup) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    server.set_idle_timeout(1)
    for _ in range(2):
        with fresh_connections:
            first = session(alias)
        eventually(is_gone(server, first), within=5)
    with fresh_connections:
        assert session(alias) != first


@pytest.mark.usefixtures("between")
def test_a_restart_of_the_server_between_units_fails_none(setup: Setup) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        note(alias, "before")
    server.restart()
    with fresh_connections:
        note(alias, "after")
    assert notes(server) == ["before", "after"]


def test_a_connection_is_validated_when_it_is_used_not_when_the_unit_begins(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with fresh_connections:
        first = session(probe)
    with fresh_connections:
        kill(server, first)  # within the bypass window, after the unit began
        assert session(probe) != first


def test_every_alias_is_cleaned_though_one_raises(server: Server, alias: MakeAlias) -> None:
    one, two = alias(server, "one", CONN_MAX_AGE=None), alias(server, "two", CONN_MAX_AGE=None)
    with fresh_connections:
        first = session(one)
        second = session(two)
    connections[one].connection.close()  # behind Django's back
    connections[one].errors_occurred = True
    kill(server, second)
    with fresh_connections:
        assert session(one) != first
        assert session(two) != second


# A healthy one is kept, and asked as little as can be


@pytest.mark.parametrize("max_age", [300, None])
def test_a_connection_is_kept_as_long_as_conn_max_age_says(
    server: Server, alias: MakeAlias, max_age: int | None
) -> None:
    probe = alias(server, CONN_MAX_AGE=max_age)
    seen = set()
    for _ in range(3):
        with fresh_connections:
            seen.add(session(probe))
    assert len(seen) == 1


def test_outside_a_loop_conn_max_age_0_closes_at_the_end_of_each_unit(setup: Setup) -> None:
    server, alias = setup(CONN_MAX_AGE=0)
    with fresh_connections:
        first = session(alias)
    if connections[alias].settings_dict["OPTIONS"].get("pool"):
        assert connections[alias].connection is None  # lent no more; the pool keeps it open
    else:
        eventually(is_gone(server, first))


def test_in_a_loop_units_that_follow_at_once_share_one_connection(setup: Setup) -> None:
    _, alias = setup(CONN_MAX_AGE=0)
    with kept_between_units():
        seen = set()
        for _ in range(3):
            with fresh_connections:
                seen.add(session(alias))
        assert len(seen) == 1
        close_idle(5)  # the loop is about to wait
        assert connections[alias].connection is None


def test_a_connection_that_would_be_obsolete_before_the_next_unit_is_closed_before_the_wait(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=300)
    with kept_between_units():
        with fresh_connections:
            first = session(probe)
        close_idle(200)
        assert server.sessions() == {first}
        close_idle(400)
        eventually(is_gone(server, first))


def round_trips(alias: str) -> int:
    """Statements and pings that this connection has sent to its MariaDB, this one included."""
    status = "SHOW SESSION STATUS WHERE Variable_name IN ('Questions', 'Com_admin_commands')"
    with fresh_connections, connections[alias].cursor() as cursor:
        cursor.execute(status)
        return sum(int(count) for _, count in cursor.fetchall())


@pytest.mark.parametrize("health_checks", [False, True])
def test_a_connection_that_answered_just_now_is_validated_without_a_round_trip(
    mariadb: MariaDB, alias: MakeAlias, health_checks: bool
) -> None:
    probe = alias(mariadb, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=health_checks)
    before = round_trips(probe)
    for _ in range(100):
        with fresh_connections:
            run(probe, "SELECT 1")
    assert round_trips(probe) - before == 100 + 1


def test_a_unit_without_queries_costs_no_round_trip(mariadb: MariaDB, alias: MakeAlias) -> None:
    probe = alias(mariadb, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    before = round_trips(probe)
    for _ in range(100):
        with fresh_connections:
            pass
    assert round_trips(probe) - before == 1


# What the unit left in doubt is dropped


@pytest.mark.usefixtures("between")
def test_a_unit_that_ends_in_a_database_error_costs_its_connection_and_only_that(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with pytest.raises(IntegrityError), fresh_connections:
        first = session(alias)
        raise IntegrityError("of whatever number")
    eventually(is_gone(server, first))
    assert f"connection {alias!r} dropped" in caplog.text
    with fresh_connections:
        assert session(alias) != first


def test_an_error_of_the_users_that_hides_a_database_error_counts_too(
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


@pytest.mark.parametrize("statement", ["BEGIN", "START TRANSACTION", "/* mine */ BEGIN"])
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
    if statement[0] != "/":
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
def test_an_atomic_block_that_was_never_left_does_not_poison_later_units(
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


# A caller's transaction is the caller's


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


# Queries and caches, as around a request


def test_queries_are_forgotten_at_the_start_but_not_those_that_a_caller_counts(
    alias: MakeAlias, settings: pytest.FixtureRequest
) -> None:
    probe = alias(None, CONN_MAX_AGE=None)
    connections[probe].ensure_connection()
    connections[probe].queries_log.append({"sql": "old", "time": "0"})
    with fresh_connections:
        assert not connections[probe].queries
    with CaptureQueriesContext(connections[probe]) as captured:
        for _ in range(2):
            with fresh_connections:
                run(probe, "SELECT 1")
    assert len(captured) == 2


def test_caches_are_closed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(type(caches["default"]), "close", lambda self, **_: closed.append(self))
    with fresh_connections, fresh_connections:
        assert not closed
    assert closed == [caches["default"]]


# release_connections


def test_release_gives_the_connections_back_in_the_middle_of_a_unit(setup: Setup) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        first = session(alias)
        release_connections()
        assert connections[alias].connection is None
        if not connections[alias].settings_dict["OPTIONS"].get("pool"):
            eventually(is_gone(server, first))
        session(alias)


def test_release_inside_the_units_own_transaction_is_refused(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server)
    with (
        fresh_connections,
        transaction.atomic(probe),
        pytest.raises(TransactionManagementError, match=r"inside atomic\(\)"),
    ):
        note(probe, "kept")
        release_connections()
    assert notes(server) == ["kept"]


def test_release_leaves_a_callers_transaction_alone(server: Server, alias: MakeAlias) -> None:
    probe = alias(server)
    with transaction.atomic(probe):
        note(probe, "caller's")
        with fresh_connections:
            release_connections()
    assert notes(server) == ["caller's"]
    connections[probe].close()


# Decorators


def test_a_generator_is_refused() -> None:
    def rows() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"generator .*rows\(\): it returns before it works"):
        fresh_connections(rows)


def test_a_decorated_function_keeps_its_name_and_its_result() -> None:
    @fresh_connections
    def double(number: int) -> int:
        """Twice as much."""
        return 2 * number

    assert (double.__name__, double.__doc__, double(21)) == ("double", "Twice as much.", 42)


# Cutting from outside


def busy(alias: str, started: list[int], ended: list[object]) -> None:
    """A query of a minute, in a unit of work."""
    try:
        with fresh_connections:
            started.append(session(alias))
            slow = "SELECT SLEEP(60)" if connections[alias].vendor == "mysql" else ""
            run(alias, slow or "SELECT pg_sleep(60)")
        ended.append("well")
    except Error as error:
        ended.append(error)
    finally:
        connections[alias].close()


def test_cut_ends_a_query_of_another_thread_at_once(setup: Setup) -> None:
    server, alias = setup(CONN_MAX_AGE=None)
    started: list[int] = []
    ended: list[object] = []
    thread = threading.Thread(target=busy, args=(alias, started, ended))
    thread.start()
    eventually(lambda: "sleep(60)" in str(server.session_rows()).lower())
    cut_connections({thread.ident or 0}, for_good=False)
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(ended[0], Error)
    server.kill_sessions()  # MariaDB notices only when it uses the socket


def test_cut_ends_a_statement_of_sqlite(alias: MakeAlias) -> None:
    probe = alias(None)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT count(*) FROM n"
    ended: list[object] = []
    running = threading.Event()

    def count_for_ever() -> None:
        try:
            with fresh_connections:
                connections[probe].ensure_connection()
                running.set()
                run(probe, endless)
        except Error as error:
            ended.append(error)
        finally:
            connections[probe].close()

    thread = threading.Thread(target=count_for_ever)
    thread.start()
    running.wait(5)

    def cut() -> bool:
        cut_connections({thread.ident or 0}, for_good=False)
        return not thread.is_alive()

    eventually(cut)
    assert "interrupted" in str(ended[0])


def test_cutting_a_thread_whose_connection_is_closed_cuts_nobody_elses_file(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    with fresh_connections:
        session(probe)
    raw = connections[probe].connection
    raw.close()  # its descriptor's number is free now, and taken by the next connection
    other = alias(server, "other", CONN_MAX_AGE=None)
    ids: list[int] = []

    def use() -> None:
        with fresh_connections:
            ids.append(session(other))
        cut_connections({main}, for_good=False)
        with fresh_connections:
            ids.append(session(other))
        connections[other].close()

    main = threading.get_ident()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    assert len(ids) == 2
    assert ids[0] == ids[1]


def test_nothing_is_said_of_a_unit_that_ended_well(
    server: Server, alias: MakeAlias, caplog: pytest.LogCaptureFixture
) -> None:
    probe = alias(server)
    with caplog.at_level(logging.DEBUG, "daemonkit"), fresh_connections:
        note(probe, "kept")
    assert not caplog.records


@pytest.mark.parametrize("health_checks", [False, True])
def test_a_pool_full_of_dead_connections_fails_no_unit(
    postgres: PostgreSQL, alias: MakeAlias, health_checks: bool
) -> None:
    options = {"pool": {"min_size": 4}}
    probe = alias(postgres, CONN_HEALTH_CHECKS=health_checks, OPTIONS=options)
    for _ in range(3):
        with fresh_connections:
            session(probe)
        kill_all(postgres)
    with fresh_connections:
        note(probe, "kept")
    assert notes(postgres) == ["kept"]
