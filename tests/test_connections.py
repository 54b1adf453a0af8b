"""The promises about connections, on real servers. Sessions are identified by the server's ids."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest
from django.core.cache import caches
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from daemonkit import fresh_connections, release_connections
from daemonkit.connections.holding import close_idle, kept_between_units
from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias, Setup
from tests.kit.sessions import is_gone, kill, kill_all, note, notes, run, session

AGES = [0, 300, None]


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


def test_every_alias_is_cleaned_even_if_one_raises(server: Server, alias: MakeAlias) -> None:
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


# A healthy connection is kept, and validated with as few round trips as possible


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
        assert connections[alias].connection is None  # returned to the pool, which keeps it open
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


def test_a_unit_that_ended_well_logs_nothing(
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


def test_a_unit_that_closed_its_connection_inside_atomic_is_not_blamed(
    server: Server, alias: MakeAlias, caplog: pytest.LogCaptureFixture
) -> None:
    """As code does that falls back to another database when a replica is lost."""
    name = alias(server, CONN_MAX_AGE=None)
    with fresh_connections, contextlib.suppress(LookupError), transaction.atomic(using=name):
        note(name, "undone")
        connections[name].close()
        raise LookupError("served by another database")
    assert caplog.records == []
    with fresh_connections:
        note(name, "kept")
    assert notes(server) == ["kept"]
