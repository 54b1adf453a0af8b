"""Cutting a thread's sessions from another thread."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from django.db import Error, OperationalError, connections, transaction

from daemonkit import fresh_connections
from daemonkit.connections import cutting
from daemonkit.connections.cutting import cut_connections
from daemonkit.connections.thread import this_thread
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias, Setup
from tests.kit.servers import MakeProxy
from tests.kit.sessions import run, session


def busy(alias: str, started: list[int], ended: list[object]) -> None:
    """A query that takes a minute, in a unit of work."""
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


def test_cutting_a_thread_whose_connection_is_closed_cuts_no_other_file(
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


# A unit of work that was cut cannot connect again


def in_a_thread(work: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    """Start the work on a thread of its own, and collect what it raises."""
    raised: list[BaseException] = []

    def run_it() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run_it)
    thread.start()
    return thread, raised


@pytest.mark.parametrize("where", ["in atomic()", "in autocommit", "in its health check"])
def test_a_unit_that_was_cut_on_a_half_open_link_does_not_connect_and_hang_again(
    server: Server, alias: MakeAlias, proxy: MakeProxy, where: str
) -> None:
    """Its connect() has no time limit: the proxy accepts it and never answers."""
    between = proxy(server)
    probe = alias(server, port=between.port, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    reached, broken, healed = threading.Event(), threading.Event(), threading.Event()
    tries: list[BaseException] = []

    def work() -> None:
        with fresh_connections:
            session(probe)
        with contextlib.suppress(Error), fresh_connections:
            if where != "in its health check":
                session(probe)
            else:
                next(iter(this_thread().links)).suspect()  # as if it had been idle for a while
            reached.set()
            broken.wait(10)
            block = transaction.atomic(probe) if where == "in atomic()" else nullcontext()
            try:
                with block:
                    session(probe)
            except Error as error:
                tries.append(error)
            session(probe)  # the code goes on, whatever happened
        reached.clear()
        healed.wait(10)
        with fresh_connections:
            session(probe)
        connections[probe].close()

    thread, raised = in_a_thread(work)
    reached.wait(10)
    between.drop()
    broken.set()
    eventually(lambda: is_in_driver(thread))
    links = between.links
    cut_connections({thread.ident or 0}, for_good=False)
    eventually(lambda: not reached.is_set(), within=10)
    assert between.links <= links
    between.resume()
    healed.set()
    thread.join(10)
    assert not thread.is_alive()
    assert not raised


def is_in_driver(thread: threading.Thread) -> bool:
    """Whether a thread is in Django's or the driver's code."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and "site-packages" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None


def test_a_new_alias_is_refused_too_after_the_cut(server: Server, alias: MakeAlias) -> None:
    one, two = alias(server, "one"), alias(server, "two")
    cut, gone_on = threading.Event(), threading.Event()

    def work() -> None:
        with fresh_connections:
            session(one)
            gone_on.set()
            cut.wait(10)
            with pytest.raises(
                OperationalError, match="past its time limit; it cannot open new ones"
            ):
                session(two)
        with fresh_connections:
            session(two)

    thread, raised = in_a_thread(work)
    gone_on.wait(10)
    cut_connections({thread.ident or 0}, for_good=False)
    cut.set()
    thread.join(10)
    assert not raised


def silent_listener(stack: contextlib.ExitStack) -> int:
    """The port of a server whose backlog is full: it answers no attempt to connect."""
    server = stack.enter_context(socket.socket())
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    for _ in range(3):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(server.getsockname())
    return int(server.getsockname()[1])


@pytest.mark.parametrize("silence", ["of the host", "of the server"])
def test_a_cut_ends_an_attempt_to_connect(
    server: Server, alias: MakeAlias, proxy: MakeProxy, silence: str
) -> None:
    """No driver exposes its socket by then. The connection of another thread is left alone."""
    cutting.install()
    with contextlib.ExitStack() as stack:
        if silence == "of the host":
            port = silent_listener(stack)
        else:
            between = proxy(server)
            between.drop()
            port = between.port
        probe, other = alias(server, port=port), alias(server, "other", CONN_MAX_AGE=None)

        def work() -> None:
            with fresh_connections:
                session(probe)

        thread, raised = in_a_thread(work)
        eventually(lambda: is_in_driver(thread))
        with fresh_connections:
            first = session(other)
        with fresh_connections:

            def is_cut() -> bool:
                cut_connections({thread.ident or 0}, for_good=False)
                thread.join(0.1)
                return not thread.is_alive()

            eventually(is_cut)
            assert session(other) == first
        assert isinstance(raised[0], OperationalError)
        connections[other].close()
