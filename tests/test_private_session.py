"""daemonkit's own database session, on real servers: bounded, named, and apart from Django's."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connections, transaction

from daemonkit import fresh_connections
from daemonkit.connections.private_session import PrivateSession
from daemonkit.connections.session_thread import NoAnswer, private_wrapper
from daemonkit.errors import Problem, classify
from lab.pgbouncer import PgBouncer
from lab.servers import PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.servers import MakeProxy


@pytest.fixture
def probe(server: Server, alias: MakeAlias) -> str:
    return alias(server)


@pytest.fixture
def session(probe: str) -> Iterator[PrivateSession]:
    session = PrivateSession(probe, seconds=3, name="daemonkit probing")
    yield session
    session.close()


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "daemonkit-session"]


def answered(session: PrivateSession) -> list[tuple[Any, ...]]:
    try:
        return session.execute("SELECT 1", [], 2)[1]
    except OperationalError:
        return []


# Apart from Django's connections


def test_a_statement_is_committed_when_it_is_answered(
    session: PrivateSession, server: Server
) -> None:
    assert session.execute("INSERT INTO entry (note) VALUES (%s)", ["x"], 5)[0] == 1
    assert server.execute("SELECT note FROM entry") == [("x",)]
    assert session.execute("SELECT note FROM entry", [], 5) == (1, [("x",)])


def test_the_session_is_none_of_djangos_and_no_unit_of_work_closes_it(
    session: PrivateSession, server: Server, probe: str
) -> None:
    session.execute("SELECT 1", [], 5)
    before = server.sessions()
    assert len(before) == 1
    with fresh_connections:
        assert connections[probe].connection is None
    connections.close_all()
    session.execute("SELECT 1", [], 5)
    assert server.sessions() == before


def test_the_session_leaves_djangos_pool_alone(alias: MakeAlias, postgres: Server) -> None:
    name = alias(postgres, OPTIONS={"pool": {"min_size": 1, "max_size": 2}})
    wrapper = private_wrapper(name, 3)
    assert "pool" not in wrapper.settings_dict["OPTIONS"]
    assert wrapper.pool is None
    assert "pool" in connections[name].settings_dict["OPTIONS"]


def test_a_users_shorter_time_limits_hold_for_the_session_too(
    server: Server, alias: MakeAlias
) -> None:
    option = "connect_timeout"
    wrapper = private_wrapper(alias(server, OPTIONS={option: 2}), 30)
    assert wrapper.settings_dict["OPTIONS"][option] == 2
    wrapper = private_wrapper(alias(server, "plain"), 4.2)
    assert wrapper.settings_dict["OPTIONS"][option] == 5


def test_work_with_the_orm_runs_on_the_session_and_takes_effect_as_one(
    session: PrivateSession, server: Server, probe: str
) -> None:
    def work(fails: bool = False) -> None:
        with transaction.atomic(using=probe), connections[probe].cursor() as cursor:
            cursor.execute("INSERT INTO entry (note) VALUES ('a')")
            cursor.execute("INSERT INTO entry (note) VALUES ('b')")
            if fails:
                raise IntegrityError("no")

    session.run(work, 5)
    before = server.sessions()
    with pytest.raises(IntegrityError):
        session.run(lambda: work(fails=True), 5)
    assert server.execute("SELECT note FROM entry") == [("a",), ("b",)]
    session.execute("SELECT 1", [], 5)
    assert not before & server.sessions()  # after an error the session is a new one


# Named


def test_the_server_shows_whose_session_it_is(alias: MakeAlias, postgres: Server) -> None:
    name = alias(postgres, OPTIONS={"application_name": "shop"})
    session = PrivateSession(name, seconds=3, name="daemonkit " + "x" * 80)
    _, [(shown,)] = session.execute("SELECT current_setting('application_name')", [], 5)
    session.close()
    assert shown == ("daemonkit " + "x" * 80)[:63]


def test_pymysql_tells_the_server_whose_session_it_is(alias: MakeAlias, mariadb: Server) -> None:
    name = alias(mariadb, ENGINE="lab.pymysql_backend")
    wrapper = private_wrapper(name, 3, "daemonkit probing")
    assert wrapper.settings_dict["OPTIONS"]["program_name"] == "daemonkit probing"
    session = PrivateSession(name, seconds=3, name="daemonkit probing")
    assert session.execute("SELECT 1", [], 5)[1] == [(1,)]
    session.close()


@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, "daemonkit several"), ({"pool": True}, "daemonkit several"),
     ({"application_name": "shop"}, "shop")],
)  # fmt: skip
def test_a_daemons_own_connections_are_named_unless_options_say_otherwise(
    alias: MakeAlias, postgres: Server, monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any], shown: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("PGAPPNAME", "daemonkit several")  # as in a daemon's process
    with fresh_connections, connections[alias(postgres, OPTIONS=options)].cursor() as cursor:
        cursor.execute("SELECT current_setting('application_name')")
        assert cursor.fetchone() == (shown,)


# Behind pgbouncer


def test_it_works_behind_pgbouncer_in_transaction_mode(alias: MakeAlias, postgres: Server) -> None:
    assert isinstance(postgres, PostgreSQL)
    with PgBouncer(postgres) as bouncer:
        name = alias(postgres, port=bouncer.port)
        sessions = [PrivateSession(name, seconds=3, name="daemonkit probing") for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:  # more clients than sessions of the server
            for session in sessions * 25:
                pool.submit(session.execute, "INSERT INTO entry (note) VALUES ('x')", [], 5)
        _, [(shown,)] = sessions[0].execute("SELECT current_setting('application_name')", [], 5)
        for session in sessions:
            session.close()
    assert shown == "daemonkit probing"
    assert postgres.execute("SELECT count(*) FROM entry") == [(100,)]


# Bounded


def test_a_session_that_was_killed_while_idle_costs_no_error(
    session: PrivateSession, server: Server
) -> None:
    session.execute("SELECT 1", [], 5)
    killed = server.kill_sessions()
    assert session.execute("SELECT 1", [], 5)[1] == [(1,)]
    assert not killed & server.sessions()


def test_a_session_that_is_killed_in_a_statement_is_an_error_and_the_next_one_is_new(
    session: PrivateSession, server: Server
) -> None:
    sleep = "SELECT pg_sleep(30)" if isinstance(server, PostgreSQL) else "SELECT SLEEP(30)"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(session.execute, sleep, [], 20)
        eventually(lambda: "sleep(30)" in str(server.session_rows()).lower())
        server.kill_sessions()
        assert classify(asked.exception(10)) is Problem.LOST
    assert session.execute("SELECT 1", [], 5)[1] == [(1,)]


def test_a_restart_of_the_server_costs_at_most_one_error(
    session: PrivateSession, server: Server
) -> None:
    session.execute("SELECT 1", [], 5)
    server.restart()
    assert eventually(lambda: answered(session)) == [(1,)]


def test_a_call_on_a_server_that_does_not_answer_ends_within_its_time_limit(
    server: Server, alias: MakeAlias, proxy: MakeProxy
) -> None:
    through = proxy(server)
    session = PrivateSession(alias(server, port=through.port), seconds=3)
    session.execute("SELECT 1", [], 5)
    for stop in (through.stall, through.drop):
        stop()
        for _ in range(3):  # in the middle of a session, and while it connects
            asked = time.monotonic()
            with pytest.raises(NoAnswer) as caught:
                session.execute("SELECT 1", [], 0.3)
            assert time.monotonic() - asked < 1.5
            assert classify(caught.value) is Problem.LOST
        through.resume()
        assert eventually(lambda: answered(session), within=10) == [(1,)]
    session.close()
    through.close()
    eventually(lambda: not threads(), 10)


def test_a_call_on_a_frozen_server_ends_within_its_time_limit(
    session: PrivateSession, server: Server
) -> None:
    session.execute("SELECT 1", [], 5)
    server.freeze()
    with pytest.raises(NoAnswer):
        session.execute("SELECT 1", [], 0.2)
    server.thaw()
    assert eventually(lambda: answered(session), within=10) == [(1,)]


def test_who_is_late_is_cut_and_does_not_wait_for_the_drivers_own_limit(
    server: Server, alias: MakeAlias, proxy: MakeProxy
) -> None:
    through = proxy(server)
    session = PrivateSession(alias(server, port=through.port), seconds=60)
    session.execute("SELECT 1", [], 5)
    through.stall()
    with pytest.raises(NoAnswer, match="no answer"):
        session.execute("SELECT 1", [], 0.2)
    eventually(lambda: not threads(), 10)


def test_no_more_than_three_threads_hang_in_a_driver(
    server: Server, alias: MakeAlias, proxy: MakeProxy
) -> None:
    through = proxy(server)
    through.stall()
    session = PrivateSession(alias(server, port=through.port), seconds=3)
    for _ in range(6):
        with pytest.raises(NoAnswer):
            session.execute("SELECT 1", [], 0.05)
    hanging = threads()
    assert len(hanging) <= 3
    through.close()
    eventually(lambda: not any(each.is_alive() for each in hanging), 10)


# Shared


def test_many_threads_share_one_session(session: PrivateSession, server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: session.execute(f"SELECT {number}", [], 10)[1],
                                range(100)))  # fmt: skip
    assert answers == [[(number,)] for number in range(100)]
    assert len(server.sessions()) == 1


@pytest.fixture
def waiting(session: PrivateSession) -> Iterator[Callable[..., Any]]:
    """``waiting(work, urgent=...)``: submits work and returns when it waits for its turn."""
    with ThreadPoolExecutor(8) as pool:

        def submit(work: Callable[[], Any], *, urgent: bool = False) -> Any:
            before = session.waiting
            future = pool.submit(session.run, work, 20, urgent=urgent)
            eventually(lambda: session.waiting == before + 1)
            return future

        yield submit


def test_urgent_requests_go_before_the_others(
    session: PrivateSession, waiting: Callable[..., Any]
) -> None:
    gate, order = threading.Event(), list[str]()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(session.run, lambda: gate.wait(20), 20)
        eventually(lambda: session.is_in_use)
        futures = [waiting(lambda: order.append("claim")) for _ in range(3)]
        futures.append(waiting(lambda: order.append("renewal"), urgent=True))
        gate.set()
        for future in futures:
            future.result(20)
    assert order[0] == "renewal"
    assert len(order) == 4


def test_a_request_whose_turn_does_not_come_in_time_is_refused(session: PrivateSession) -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(session.run, lambda: gate.wait(20), 20)
        eventually(lambda: session.is_in_use)
        with pytest.raises(NoAnswer, match="not free within"):
            session.execute("SELECT 1", [], 0.05)
        gate.set()
    assert session.execute("SELECT 1", [], 5)[1] == [(1,)]


# Idle, and in a forked child


def test_an_idle_session_is_closed_and_the_next_request_opens_a_new_one(
    probe: str, server: Server
) -> None:
    session = PrivateSession(probe, seconds=3, idle_seconds=0.05)
    session.execute("SELECT 1", [], 5)
    eventually(lambda: not server.sessions())
    assert session.execute("SELECT 1", [], 5)[1] == [(1,)]
    session.close()


def test_a_forked_child_has_a_session_of_its_own(session: PrivateSession, server: Server) -> None:
    session.execute("SELECT 1", [], 5)
    before = server.sessions()
    child = os.fork()
    if child == 0:
        try:
            own = session.execute("INSERT INTO entry (note) VALUES ('child')", [], 5)[0] == 1
            session.close()
        finally:
            os._exit(0 if own else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert server.execute("SELECT note FROM entry") == [("child",)]
    session.execute("SELECT 1", [], 5)
    assert server.sessions() == before
