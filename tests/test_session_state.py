"""What belongs to a session, and for how many units of work it lasts: docs/connections.md."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from django.db import DataError, Error, IntegrityError, connections

from daemonkit import fresh_connections
from lab.processes import ROOT
from lab.servers import Server
from tests.conftest import MakeAlias
from tests.test_docs import blocks

PAGE = ROOT / "docs/connections.md"


class State(NamedTuple):
    """A statement that leaves something in the session, and one that answers 1 while it lasts."""

    leave: str
    ask: str


MYSQL = {
    "GET_LOCK": State(
        "SELECT GET_LOCK('daemonkit', 0)", "SELECT IS_USED_LOCK('daemonkit') = CONNECTION_ID()"
    ),
    "user variable": State("SET @daemonkit = 1", "SELECT @daemonkit"),
    "session variable": State(
        "SET SESSION max_statement_time = 7", "SELECT @@session.max_statement_time = 7"
    ),
}
POSTGRESQL = {
    "advisory lock": State(
        "SELECT pg_advisory_lock(7)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    "LISTEN": State("LISTEN daemonkit", "SELECT count(*) FROM pg_listening_channels()"),
    "temporary table": State(
        "CREATE TEMPORARY TABLE mine (id INT)",
        "SELECT count(*) FROM pg_class WHERE relname = 'mine' AND relpersistence = 't'"
        " AND pg_table_is_visible(oid)",
    ),
    "session variable": State(
        "SET lock_timeout = '7s'", "SELECT (current_setting('lock_timeout') = '7s')::int"
    ),
    "SET ROLE": State("SET ROLE daemonkit", "SELECT (current_setting('role') = 'daemonkit')::int"),
}
DUPLICATE = "INSERT INTO entry (id, note) VALUES (7, 'first'), (7, 'second')"
TOO_LONG = "INSERT INTO entry (note) VALUES (REPEAT('x', 300))"
STATES = [
    pytest.param(name, state, id=f"{name}-{what}")
    for name, states in (("mariadb", MYSQL), ("postgres", POSTGRESQL))
    for what, state in states.items()
]


@pytest.fixture
def server(request: pytest.FixtureRequest, name: str) -> Server:
    found: Server = request.getfixturevalue(name)
    return found


@pytest.mark.parametrize(("name", "state"), STATES)
@pytest.mark.parametrize(("max_age", "lasts"), [(0, False), (300, True), (None, True)])
def test_state_lasts_as_long_as_its_session(
    server: Server, alias: MakeAlias, state: State, max_age: int | None, lasts: bool
) -> None:
    used = alias(server, CONN_MAX_AGE=max_age)
    leave(used, state)
    assert is_left(used, state) is lasts


@pytest.mark.parametrize(("name", "state"), STATES)
def test_state_is_gone_after_a_unit_of_work_that_failed(
    server: Server, alias: MakeAlias, state: State
) -> None:
    used = alias(server, CONN_MAX_AGE=None)
    leave(used, state)
    with pytest.raises(Error), fresh_connections:
        query(used, "SELECT nonsense")
    assert not is_left(used, state)


@pytest.mark.parametrize(
    ("name", "state"),
    [("mariadb", MYSQL["GET_LOCK"]), ("postgres", POSTGRESQL["advisory lock"])],
    ids=["mariadb", "postgres"],
)
def test_state_stays_after_an_error_that_says_nothing_about_the_session(
    server: Server, alias: MakeAlias, state: State
) -> None:
    used = alias(server, CONN_MAX_AGE=None)
    leave(used, state)
    with pytest.raises(IntegrityError), fresh_connections:
        query(used, DUPLICATE)
    assert is_left(used, state)
    with pytest.raises(DataError), fresh_connections:
        query(used, TOO_LONG)
    assert is_left(used, state)


@pytest.mark.parametrize(
    ("name", "state"), [pytest.param("postgres", POSTGRESQL["advisory lock"], id="postgres")]
)
def test_a_pool_lends_a_session_again_with_its_state(
    server: Server, alias: MakeAlias, state: State
) -> None:
    used = alias(server, OPTIONS={"pool": {"min_size": 1, "max_size": 1}})
    leave(used, state)
    assert is_left(used, state)


def test_a_session_of_ones_own_outlives_units_of_work(mariadb: Server, alias: MakeAlias) -> None:
    """By the code of the page, with another alias."""
    used = alias(mariadb, CONN_MAX_AGE=0)
    (code,) = (block for block in blocks(PAGE, "python") if ".copy()" in block)
    page: dict[str, Any] = {}
    exec(code.replace('"default"', repr(used)), page)
    lock = MYSQL["GET_LOCK"]
    daemon = page["Command"]()
    with daemon.lifespan():
        with daemon.locks.cursor() as cursor:
            cursor.execute(lock.leave)
        with pytest.raises(Error), fresh_connections:
            query(used, "SELECT nonsense")
        with daemon.locks.cursor() as cursor:
            cursor.execute(lock.ask)
            assert cursor.fetchone() == (1,)


def leave(alias: str, state: State) -> None:
    with fresh_connections:
        query(alias, state.leave)


@fresh_connections
def is_left(alias: str, state: State) -> bool:
    return query(alias, state.ask) == 1


def query(alias: str, sql: str) -> object:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None
