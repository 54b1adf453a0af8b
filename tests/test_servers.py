"""The tools of the tests: the servers do as they are told, and so does the proxy."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connections

from lab.pgbouncer import SESSIONS, PgBouncer
from lab.processes import Daemon
from lab.proxy import Proxy
from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually


@contextlib.contextmanager
def connected(server: Server, **options: Any) -> Iterator[Any]:
    connection = server.connect(**options)
    try:
        yield connection
    finally:
        with contextlib.suppress(Exception):
            connection.close()


def ask(connection: Any, sql: str = "SELECT 1") -> Any:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def session_of(server: Server, connection: Any) -> int:
    own_id = "SELECT CONNECTION_ID()" if server.vendor == "mysql" else "SELECT pg_backend_pid()"
    return int(ask(connection, own_id))


def seconds_until_error(action: Callable[[], Any]) -> float:
    started = time.monotonic()
    with pytest.raises(Exception, match=r".*"):
        action()
    return time.monotonic() - started


# Sessions


def test_the_sessions_of_clients_are_listed_and_no_others(server: Server) -> None:
    assert server.sessions() == set()
    with connected(server) as one, connected(server, socket=False) as other:
        assert server.sessions() == {session_of(server, one), session_of(server, other)}
        assert {row.database for row in server.session_rows()} == {"daemonkit"}
    eventually(lambda: not server.sessions())


def test_what_a_session_runs_is_shown(server: Server) -> None:
    sleep = "SELECT SLEEP(5)" if server.vendor == "mysql" else "SELECT pg_sleep(5)"
    with connected(server) as connection:
        query = threading.Thread(target=lambda: seconds_until_error(lambda: ask(connection, sleep)))
        query.start()
        rows = eventually(lambda: [row for row in server.session_rows() if row.query == sleep])
        server.kill_session(rows[0].id)
        query.join(5)
        assert not query.is_alive()


@pytest.mark.parametrize("driver", ["MySQLdb", "pymysql"])
def test_a_killed_session_fails_with_2006_or_2013(mariadb: MariaDB, driver: str) -> None:
    pytest.importorskip(driver, exc_type=ImportError)
    with connected(mariadb, driver=driver) as connection:
        mariadb.kill_session(session_of(mariadb, connection))
        with pytest.raises(Exception, match=r"2006|2013") as caught:
            ask(connection)
        assert caught.value.args[0] in (2006, 2013)


def test_a_killed_session_fails_with_admin_shutdown(postgres: PostgreSQL) -> None:
    with connected(postgres) as connection:
        postgres.kill_session(session_of(postgres, connection))
        with pytest.raises(Exception, match="terminating connection") as caught:
            ask(connection)
        assert getattr(caught.value, "sqlstate", None) == "57P01"


def test_an_idle_session_is_closed_by_the_server(server: Server) -> None:
    server.set_idle_timeout(1)
    with connected(server) as connection:
        assert server.sessions()
        eventually(lambda: not server.sessions(), within=4, what="the idle session is closed")
        seconds_until_error(lambda: ask(connection))


def test_a_setting_lasts_until_it_is_reset(server: Server) -> None:
    name = "max_connections" if server.vendor == "mysql" else "work_mem"
    with connected(server) as before:
        default = ask(before, show(server, name))
    server.configure(name, 30 if server.vendor == "mysql" else "9MB")
    with connected(server) as changed:
        assert ask(changed, show(server, name)) in (30, "9MB")
    server.reset()
    with connected(server) as after:
        assert ask(after, show(server, name)) == default


def show(server: Server, name: str) -> str:
    return f"SELECT @@GLOBAL.{name}" if server.vendor == "mysql" else f"SHOW {name}"


def test_a_client_is_an_ordinary_user(mariadb: MariaDB) -> None:
    mariadb.configure("read_only", 1)
    with connected(mariadb) as connection, pytest.raises(Exception, match="1290"):
        ask(connection, "INSERT INTO entry (note) VALUES ('a')")


# A server's life


def test_data_outlives_a_kill(server: Server) -> None:
    server.execute("INSERT INTO entry (note) VALUES (%s)", ("kept",))
    with connected(server) as connection:
        server.kill()
        assert not server.is_running
        seconds_until_error(lambda: ask(connection))
        seconds_until_error(lambda: server.connect())
    server.start()
    assert server.execute("SELECT id, note FROM entry") == [(1, "kept")]


def test_a_restart_ends_all_sessions_and_keeps_the_address(server: Server) -> None:
    with connected(server, socket=False) as connection:
        server.restart()
        seconds_until_error(lambda: ask(connection))
    with connected(server, socket=False) as connection:
        assert ask(connection) == 1


def test_a_frozen_mariadb_says_nothing_until_it_is_thawed(mariadb: MariaDB) -> None:
    with connected(mariadb, read_timeout=1) as impatient, connected(mariadb) as patient:
        mariadb.freeze()
        assert 0.5 < seconds_until_error(lambda: ask(impatient)) < 3
        threading.Timer(0.3, mariadb.thaw).start()
        started = time.monotonic()
        assert ask(patient) == 1
        assert time.monotonic() - started > 0.2


def test_a_frozen_postgresql_says_nothing_until_it_is_thawed(postgres: PostgreSQL) -> None:
    with connected(postgres) as connection:
        postgres.freeze()
        answers: list[int] = []
        query = threading.Thread(target=lambda: answers.append(ask(connection)))
        query.start()
        query.join(0.5)
        assert not answers
        postgres.thaw()
        query.join(5)
        assert answers == [1]


def test_databases_come_and_go(server: Server) -> None:
    server.create_database("daemonkit_other")
    other: dict[str, Any] = {
        "database" if server.vendor == "mysql" else "dbname": "daemonkit_other"
    }
    with connected(server, **other) as connection:
        assert ask(connection) == 1
    server.drop_database("daemonkit_other")
    seconds_until_error(lambda: server.connect(**other))


# The proxy


def test_a_proxy_passes_everything_on(server: Server, proxy: Callable[..., Proxy]) -> None:
    with connected(server, port=proxy(server).port) as connection:
        assert len(ask(connection, "SELECT REPEAT('x', 3000000)")) == 3_000_000


def test_a_cut_link_fails_and_a_new_one_works(server: Server, proxy: Callable[..., Proxy]) -> None:
    network = proxy(server)
    with connected(server, port=network.port) as connection:
        assert network.links == 1
        network.cut()
        assert network.links == 0
        assert seconds_until_error(lambda: ask(connection)) < 2
        eventually(lambda: not server.sessions())
    with connected(server, port=network.port) as connection:
        network.cut(reset=True)
        assert seconds_until_error(lambda: ask(connection)) < 2


def test_a_stalled_link_stands_and_goes_on_later(
    server: Server, proxy: Callable[..., Proxy]
) -> None:
    network = proxy(server)
    with connected(server, port=network.port) as connection:
        network.stall()
        answers: list[int] = []
        query = threading.Thread(target=lambda: answers.append(ask(connection)))
        query.start()
        query.join(0.3)
        assert not answers
        assert server.sessions()
        network.resume()
        query.join(5)
        assert answers == [1]


def test_a_connection_begun_while_stalled_is_served_later(
    server: Server, proxy: Callable[..., Proxy]
) -> None:
    network = proxy(server)
    network.stall()
    threading.Timer(0.3, network.resume).start()
    with connected(server, port=network.port) as connection:
        assert ask(connection) == 1


def test_dropped_data_never_arrives(mariadb: MariaDB, proxy: Callable[..., Proxy]) -> None:
    network = proxy(mariadb)
    with connected(mariadb, port=network.port, read_timeout=1) as connection:
        network.drop()
        insert = "INSERT INTO entry (note) VALUES ('lost')"
        assert seconds_until_error(lambda: ask(connection, insert)) > 0.5
        network.resume()
    assert mariadb.execute("SELECT * FROM entry") == []


def test_a_lost_answer_leaves_its_statement_done(
    mariadb: MariaDB, proxy: Callable[..., Proxy]
) -> None:
    network = proxy(mariadb)
    with connected(mariadb, port=network.port) as connection:
        network.lose_answers()
        insert = "INSERT INTO entry (note) VALUES ('done')"
        errors: list[float] = []
        query = threading.Thread(
            target=lambda: errors.append(seconds_until_error(lambda: ask(connection, insert)))
        )
        query.start()
        eventually(lambda: mariadb.execute("SELECT note FROM entry") == [("done",)])
        assert query.is_alive()
        network.cut()
        query.join(5)
        assert errors
    network.resume()
    with connected(mariadb, port=network.port) as connection:
        assert ask(connection) == 1


def test_a_refusing_proxy_refuses(server: Server, proxy: Callable[..., Proxy]) -> None:
    network = proxy(server)
    with connected(server, port=network.port) as present:
        network.refuse()
        seconds_until_error(lambda: server.connect(port=network.port))
        assert ask(present) == 1
    network.resume()
    with connected(server, port=network.port) as connection:
        assert ask(connection) == 1


def test_a_proxy_reaches_a_unix_socket(mariadb: MariaDB) -> None:
    with Proxy(mariadb.socket_host) as network:
        with connected(mariadb, port=network.port) as connection:
            assert ask(connection) == 1


def test_a_closed_proxy_leaves_no_thread() -> None:
    before = threading.active_count()
    network = Proxy(("127.0.0.1", 9))
    client = socket.create_connection(("127.0.0.1", network.port))
    assert client.recv(1) == b""  # the target is away
    client.close()
    network.close()
    network.close()
    assert threading.active_count() == before


# Django's aliases


def test_an_alias_is_a_database_of_django(server: Server, alias: Callable[..., str]) -> None:
    name = alias(server, CONN_MAX_AGE=300, CONN_HEALTH_CHECKS=True)
    with connections[name].cursor() as cursor:
        cursor.execute("INSERT INTO entry (note) VALUES ('from Django')")
    assert server.execute("SELECT note FROM entry") == [("from Django",)]
    assert connections[name].settings_dict["CONN_MAX_AGE"] == 300
    assert connections[name].settings_dict["AUTOCOMMIT"] is True
    assert len(server.sessions()) == 1


def test_an_alias_may_lead_through_a_proxy(
    server: Server, alias: Callable[..., str], proxy: Callable[..., Proxy]
) -> None:
    network = proxy(server)
    name = alias(server, port=network.port)
    with connections[name].cursor() as cursor:
        cursor.execute("SELECT 1")
        network.cut()
        with pytest.raises(OperationalError):
            cursor.execute("SELECT 1")


def test_the_pool_of_an_alias_is_closed_with_it(
    postgres: PostgreSQL, alias: Callable[..., str]
) -> None:
    name = alias(postgres, OPTIONS={"pool": {"min_size": 2, "max_size": 3}})
    with connections[name].cursor() as cursor:
        cursor.execute("SELECT 1")
    eventually(lambda: len(postgres.sessions()) >= 2)


def test_an_alias_without_a_server_is_a_sqlite_file(alias: Callable[..., str]) -> None:
    with connections[alias(None)].cursor() as cursor:
        cursor.execute("INSERT INTO entry (note) VALUES ('here')")
        cursor.execute("SELECT id, note FROM entry")
        assert cursor.fetchall() == [(1, "here")]


def test_two_aliases_are_two_databases(alias: Callable[..., str]) -> None:
    names = alias(None, "one"), alias(None, "two")
    assert len({str(connections[name].settings_dict["NAME"]) for name in names}) == 2


@pytest.mark.leaves_sessions
def test_sessions_that_a_test_leaves_are_killed(mariadb: MariaDB) -> None:
    LEFT.append(mariadb.connect())


def test_none_of_them_is_there_any_more(mariadb: MariaDB) -> None:
    assert mariadb.sessions() == set()
    while LEFT:
        LEFT.pop().close()


LEFT: list[Any] = []


# Processes

SCRIPT = """
import os, signal, sys, time
print("stdout here", flush=True)
print("stderr here", file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
if "child" in sys.argv and not os.fork():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
print("ready", os.environ.get("DATABASE_URL"), flush=True)
time.sleep(60)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "manage.py"
    path.write_text(SCRIPT)
    return path


def test_a_process_is_heard_signalled_and_waited_for(
    manage: Callable[..., Daemon], script: Path
) -> None:
    daemon = manage("anything", manage_py=script, env={"DATABASE_URL": "sqlite://"})
    assert daemon.wait_for(re.compile("ready .*")) == "ready sqlite://"
    assert "ready sqlite://" in daemon.so_far
    with pytest.raises(AssertionError, match="its output is incomplete"):
        assert "ready" in daemon.stdout  # it passes or fails by how fast we are read
    assert daemon.stop() == 3
    assert daemon.stdout.splitlines() == ["stdout here", "ready sqlite://"]
    assert daemon.stderr == "stderr here"
    with pytest.raises(AssertionError, match="ended with 3"):
        daemon.wait_for("what it never said", within=30)


def test_a_whole_family_is_seen_and_signalled(manage: Callable[..., Daemon], script: Path) -> None:
    daemon = manage("child", manage_py=script)
    daemon.wait_for("ready", count=2)
    assert len(daemon.family()) == 2
    daemon.signal_group(signal.SIGTERM)
    assert daemon.wait() == 3
    eventually(lambda: not daemon.family())


def test_an_orphan_is_found_and_ended(script: Path, manage: Callable[..., Daemon]) -> None:
    daemon = manage("child", manage_py=script)
    daemon.wait_for("ready", count=2)
    daemon.stop()
    assert len(daemon.end()) == 1
    assert daemon.family() == []


def test_what_never_comes_true_is_said() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: pigs fly"):
        eventually(lambda: False, within=0.05, what="pigs fly")


def test_pgbouncer_lends_few_sessions_to_many_clients(postgres: PostgreSQL) -> None:
    if reason := PgBouncer.why_missing():
        pytest.skip(reason)
    with PgBouncer(postgres) as bouncer, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(postgres, port=bouncer.port)) for _ in range(5)]
        lent = {session_of(postgres, client) for client in clients}
        assert lent <= postgres.sessions()
        assert len(lent) <= SESSIONS
    eventually(lambda: not postgres.sessions())
