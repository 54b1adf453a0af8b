"""Units of work together with third-party engines, pools, wrappers, receivers and caches."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.test import override_settings

from daemonkit import fresh_connections
from daemonkit.connections import cache_closing, thread
from daemonkit.connections.cutting import cut_connections
from lab.pooling_engines.pooling import PoolingMixin
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import is_gone, kill, kill_all, note, notes, run, session

# An engine with its own pool


@pytest.fixture
def pooling(server: Server, alias: MakeAlias) -> Iterator[str]:
    name = alias(server, ENGINE=f"lab.pooling_engines.{server.vendor}", CONN_MAX_AGE=0)
    yield name
    connections[name].close()
    for raw in PoolingMixin.pools.pop(name).idle:
        raw.close()


def test_another_packages_pool_works_as_without_daemonkit(pooling: str, server: Server) -> None:
    seen = set()
    for number in range(5):
        with fresh_connections:
            note(pooling, str(number))
            seen.add(session(pooling))
    assert len(seen) == 1
    assert notes(server) == ["0", "1", "2", "3", "4"]


def test_a_session_of_its_pool_that_was_killed_while_it_is_kept_fails_no_unit(
    server: Server, alias: MakeAlias
) -> None:
    name = alias(server, ENGINE=f"lab.pooling_engines.{server.vendor}", CONN_MAX_AGE=None)
    for _ in range(3):
        with fresh_connections:
            session(name)
        kill_all(server)
    connections[name].close()


# Receivers of connection_created


@pytest.fixture
def earlier_receiver() -> Iterator[Callable[[Callable[..., None]], None]]:
    """Return a function that connects a receiver which is called before daemonkit's."""
    connected: list[Callable[..., None]] = []

    def connect(receiver: Callable[..., None]) -> None:
        connection_created.disconnect(dispatch_uid="daemonkit.connections.units")
        connection_created.connect(receiver, weak=False)
        connected.append(receiver)
        thread.install()

    yield connect
    for receiver in connected:
        connection_created.disconnect(receiver)


@pytest.mark.parametrize("health_checks", [False, True])
def test_each_receiver_sees_the_connection_that_is_kept(
    postgres: Server,
    alias: MakeAlias,
    earlier_receiver: Callable[[Callable[..., None]], None],
    health_checks: bool,
) -> None:
    """A receiver before ours sets a tenant's name. The name is set in every unit."""

    def prepare(connection: BaseDatabaseWrapper, **_: Any) -> None:
        run(connection.alias, "SET application_name = 'tenant-7'")

    earlier_receiver(prepare)
    pool = {"min_size": 1, "max_size": 2}
    probe = alias(postgres, OPTIONS={"pool": pool}, CONN_HEALTH_CHECKS=health_checks)
    for _ in range(4):
        with fresh_connections, connections[probe].cursor() as cursor:
            cursor.execute("SHOW application_name")
            assert cursor.fetchone() == ("tenant-7",)
        connections[probe].pool.wait()
        kill_all(postgres)


def test_a_pool_that_was_opened_before_daemonkit_was_installed_is_tested_too(
    postgres: Server, alias: MakeAlias
) -> None:
    probe = alias(postgres, OPTIONS={"pool": {"min_size": 1, "max_size": 2}})
    connections[probe].pool.open(wait=True)
    kill_all(postgres)
    with fresh_connections:
        session(probe)


def test_a_pool_gets_back_a_connection_whose_test_was_interrupted(
    postgres: Server, alias: MakeAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = alias(postgres, OPTIONS={"pool": {"min_size": 1, "max_size": 1, "timeout": 5}})
    with fresh_connections:
        session(probe)

    def interrupt(raw: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(connections[probe].pool), "check_connection", staticmethod(interrupt))
        with pytest.raises(KeyboardInterrupt), fresh_connections:
            session(probe)
    with fresh_connections:
        session(probe)


# A project's own wrapper


def keeps_lock(server: Server, wrapper: BaseDatabaseWrapper) -> bool:
    """Whether the session still has its state: a lock, or a LISTEN."""
    with wrapper.cursor() as cursor:
        if server.vendor == "mysql":
            cursor.execute("SELECT IS_USED_LOCK('import') = CONNECTION_ID()")
        else:
            cursor.execute("SELECT count(*) FROM pg_listening_channels() c WHERE c = 'jobs'")
        return bool(cursor.fetchone()[0])


@pytest.fixture
def own_wrapper(server: Server, alias: MakeAlias) -> Iterator[BaseDatabaseWrapper]:
    """A copy of the alias's wrapper, outside of ``connections``, that holds session state."""
    wrapper = connections[alias(server, CONN_MAX_AGE=0)].copy()
    with wrapper.cursor() as cursor:
        take = "SELECT GET_LOCK('import', 0)" if server.vendor == "mysql" else "LISTEN jobs"
        cursor.execute(take)
    yield wrapper
    wrapper.close()


def test_a_projects_own_wrapper_keeps_its_session_over_failing_and_successful_units(
    server: Server, own_wrapper: BaseDatabaseWrapper
) -> None:
    alias = own_wrapper.alias
    for _ in range(3):
        with fresh_connections:
            session(alias)
            assert keeps_lock(server, own_wrapper)
        with contextlib.suppress(Error), fresh_connections:
            run(alias, "SELECT nonsense")
        with pytest.raises(KeyboardInterrupt), fresh_connections, transaction.atomic(alias):
            session(alias)
            raise KeyboardInterrupt
    assert keeps_lock(server, own_wrapper)


@pytest.mark.leaves_sessions  # a server goes on with a query whose client has gone
def test_a_cut_also_ends_a_query_of_a_projects_own_wrapper(
    server: Server, own_wrapper: BaseDatabaseWrapper
) -> None:
    """``tick_timeout`` must also end a query of such a wrapper."""
    here = {threading.get_ident()}
    sleep = "SELECT SLEEP(20)" if server.vendor == "mysql" else "SELECT pg_sleep(20)"

    def cut() -> None:
        eventually(lambda: any(row.query == sleep for row in server.session_rows()))
        cut_connections(here, for_good=False)

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(Error), own_wrapper.cursor() as cursor:
        cursor.execute(sleep)
    cutter.join()


def test_a_wrapper_that_was_removed_from_connections_is_still_cleaned_until_it_is_closed(
    server: Server, alias: MakeAlias
) -> None:
    """A tenant's alias that is deleted after each unit leaves no session behind."""
    probe = alias(server, CONN_MAX_AGE=0)
    forgotten = []
    for _ in range(3):
        with fresh_connections:
            forgotten.append(connections[probe])  # so that no destructor closes it
            seen = session(probe)
            del connections[probe]
        eventually(is_gone(server, seen))


def test_a_wrapper_that_a_project_puts_into_connections_is_cleaned(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    connections[probe] = connections[probe].copy()
    with fresh_connections:
        first = session(probe)
    kill(server, first)
    with fresh_connections:
        assert session(probe) != first


# Statements as drivers take them


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_statement_in_bytes_works_as_without_daemonkit(
    mariadb: Server, alias: MakeAlias, kind: type
) -> None:
    probe = alias(mariadb, CONN_MAX_AGE=None)

    def ask(sql: str) -> object:
        with connections[probe].cursor() as cursor:
            cursor.execute(kind(sql.encode()))
            return cursor.fetchone() if cursor.description else None

    assert ask("SELECT 41 + 1") == (42,)  # outside of a unit, as in a web request
    with fresh_connections:
        assert ask("SELECT 41 + 1") == (42,)
        ask("INSERT INTO entry (note) VALUES ('kept')")
    with fresh_connections:
        ask("BEGIN")
        ask("INSERT INTO entry (note) VALUES ('abandoned')")
    with fresh_connections, transaction.atomic(probe):
        ask("INSERT INTO entry (note) VALUES ('kept, too')")
    assert notes(mariadb) == ["kept", "kept, too"]


# A cache that cannot be closed


class Flaky(LocMemCache):
    closed: list[str] = []
    server_is_away = False

    def close(self, **_: Any) -> None:
        self.closed.append("flaky")
        if self.server_is_away:
            raise ConnectionResetError("the cache server went away")


class Steady(LocMemCache):
    def close(self, **_: Any) -> None:
        Flaky.closed.append("steady")


@pytest.fixture
def flaky_caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    cache_closing.forget_warnings()
    kinds = {"default": Flaky, "other": Steady}
    backends = {name: {"BACKEND": f"{__name__}.{kind.__name__}"} for name, kind in kinds.items()}
    with override_settings(CACHES=backends):
        Flaky.closed.clear()
        monkeypatch.setattr(Flaky, "server_is_away", True)
        yield Flaky.closed
        monkeypatch.undo()


def test_a_cache_that_cannot_be_closed_changes_no_result_and_the_others_are_closed(
    flaky_caches: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @fresh_connections
    def handle() -> str:
        for name in ("default", "other"):
            caches[name].set("a", 1)
        return "the answer"

    assert [handle() for _ in range(3)] == ["the answer"] * 3
    assert flaky_caches == ["flaky", "steady"] * 3
    assert caplog.text.count("Flaky could not be closed") == 1  # once a minute

    @fresh_connections
    def fail() -> None:
        caches["default"].set("a", 1)
        raise ValueError("the handler's own error")

    with pytest.raises(ValueError, match="own error"):
        fail()
