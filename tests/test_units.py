"""fresh_connections for classes, coroutines and pairs of signals, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import OperationalError, connections, transaction
from django.dispatch import Signal

from daemonkit import fresh_connections, release_connections
from daemonkit.connections.pauses import forget_warnings
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import is_gone, kill, kill_all, note, notes, session

# A handler class


class Iface:
    """An interface as a Thrift compiler generates it."""

    def get(self, alias: str) -> int:
        raise NotImplementedError

    def ping(self) -> str:
        return "pong"


@fresh_connections
class Handler(Iface):
    unit = "EUR"

    def __init__(self, alias: str = "probe") -> None:
        self.alias = alias

    def get(self, alias: str) -> int:
        """The session."""
        return session(alias)

    @staticmethod
    def static(alias: str) -> int:
        return session(alias)

    @classmethod
    def of_class(cls, alias: str) -> tuple[type, int]:
        return cls, session(alias)

    @property
    def name(self) -> str:
        return f"handler of {self.alias}"

    def _private(self, alias: str) -> int:
        return session(alias)


@pytest.mark.parametrize("max_age", [0, 300, None])
def test_every_public_method_of_a_decorated_class_is_a_unit_of_work(
    server: Server, alias: MakeAlias, max_age: int | None
) -> None:
    probe = alias(server, CONN_MAX_AGE=max_age)
    handler = Handler()
    for call in (handler.get, handler.static, handler.of_class) * 2:
        call(probe)
        kill_all(server)
    assert handler.of_class(probe)[0] is Handler
    assert (Handler.get.__doc__, handler.name, handler.ping()) == (
        "The session.",
        "handler of probe",
        "pong",
    )
    assert isinstance(handler, Iface)


def test_a_private_method_is_not_wrapped(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, CONN_MAX_AGE=0)
    Handler()._private(probe)
    assert connections[probe].connection is not None


def test_the_callers_row_its_on_commit_and_its_session_survive(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=0)
    committed = []
    with transaction.atomic(probe):
        note(probe, "caller's")
        transaction.on_commit(lambda: committed.append(True), using=probe)
        before = session(probe)
        assert Handler().get(probe) == before
    assert (notes(server), committed) == (["caller's"], [True])
    connections[probe].close()


class Empty:
    """A class without public methods."""

    def _hidden(self) -> None: ...


class Streaming:
    def rows(self) -> Iterator[int]:
        yield 1


async def stream() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (Empty, "Empty defines no public method"),
        (Streaming, r"generator Streaming.rows\(\): it returns before it works"),
        (stream, r"generator stream\(\): it returns before it works"),
        (property(lambda self: 1), "cannot decorate a property; decorate its function"),
        (Handler("x"), "decorates functions and classes, not an instance such as"),
        (42, "decorates functions and classes, not an instance such as 42"),
    ],
)
def test_what_cannot_be_a_unit_of_work_is_refused_in_one_sentence(work: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence) as refused:
        fresh_connections(work)
    assert "\n" not in str(refused.value)


def test_a_partial_and_a_staticmethod_may_be_decorated(alias: MakeAlias) -> None:
    probe = alias(None)
    assert fresh_connections(functools.partial(note, probe, "kept"))() is None
    assert isinstance(fresh_connections(staticmethod(note)), staticmethod)


# Coroutines


@fresh_connections
async def ask(alias: str) -> int:
    return await sync_to_async(session)(alias)


@pytest.mark.parametrize("max_age", [0, 300, None])
def test_a_coroutine_is_a_unit_of_work_on_the_thread_of_its_queries(
    server: Server, alias: MakeAlias, max_age: int | None
) -> None:
    probe = alias(server, CONN_MAX_AGE=max_age)
    for _ in range(3):
        async_to_sync(ask)(probe)
        kill_all(server)


@pytest.mark.parametrize("fails", [False, True])
def test_the_end_of_a_coroutine_does_not_close_the_connection_of_another(
    server: Server, alias: MakeAlias, fails: bool
) -> None:
    """One ends, with or without an error, while the other is between two queries."""
    probe = alias(server, CONN_MAX_AGE=0)

    async def both() -> tuple[int, int]:
        in_the_middle, other_ended = asyncio.Event(), asyncio.Event()

        @fresh_connections
        async def long() -> tuple[int, int]:
            first = await sync_to_async(session)(probe)
            in_the_middle.set()
            await other_ended.wait()
            return first, await sync_to_async(session)(probe)

        @fresh_connections
        async def short() -> None:
            await sync_to_async(session)(probe)
            if fails:
                raise OperationalError("of whatever number")

        task = asyncio.create_task(long())
        await in_the_middle.wait()
        try:
            await short()
        except OperationalError:
            assert fails
        other_ended.set()
        return await task

    first, second = async_to_sync(both)()
    assert first == second
    eventually(is_gone(server, first))  # the last one closed it


def test_under_a_load_that_never_pauses_a_dead_connection_is_replaced(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)

    async def load() -> tuple[int, int]:
        hold = asyncio.Event()

        @fresh_connections
        async def endless() -> None:
            await hold.wait()

        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        first = await ask(probe)
        await sync_to_async(kill, thread_sensitive=False)(server, first)
        second = await ask(probe)
        hold.set()
        await task
        return first, second

    first, second = async_to_sync(load)()
    assert first != second


# Between two signals


def test_the_time_between_two_signals_is_a_unit_of_work(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    started, finished = Signal(), Signal()
    undo = fresh_connections.between(started, finished)
    seen = set()
    for _ in range(3):
        started.send(None)
        seen.add(session(probe))
        finished.send(None)
        kill_all(server)
    assert len(seen) == 3
    undo()
    assert not started.has_listeners()
    assert not finished.has_listeners()


def test_a_second_start_ends_the_first_and_an_unmatched_finish_is_ignored(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=0)
    started, finished = Signal(), Signal()
    undo = fresh_connections.between(started, finished)
    finished.send(None)
    started.send(None)
    first = session(probe)
    started.send(None)
    eventually(is_gone(server, first))
    second = session(probe)
    finished.send(None)
    finished.send(None)
    eventually(is_gone(server, second))
    undo()


def test_each_thread_is_between_its_own_signals(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, CONN_MAX_AGE=0)
    started, finished = Signal(), Signal()
    undo = fresh_connections.between(started, finished)
    started.send(None)
    first = session(probe)

    def other() -> None:
        started.send(None)
        session(probe)
        finished.send(None)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(5)
    assert session(probe) == first
    finished.send(None)
    undo()


def test_between_accepts_only_signals() -> None:
    with pytest.raises(TypeError, match=r"takes two django.dispatch.Signal, not 'started'"):
        fresh_connections.between("started", Signal())  # type: ignore[arg-type]


# A pause longer than the server's idle timeout


@pytest.fixture
def unwarned() -> Iterator[None]:
    """Reset the hourly warnings and the known idle timeouts."""
    forget_warnings()
    yield
    forget_warnings()


def pause_too_long(server: Server, alias: str) -> None:
    """Query, and then wait until the server has closed the session."""
    eventually(is_gone(server, session(alias)), within=5)
    threading.Event().wait(0.2)  # clearly later than the server's timeout


@pytest.mark.usefixtures("unwarned")
@pytest.mark.parametrize("queries_again", [True, False])
def test_a_connection_idle_for_longer_than_the_server_allows_is_logged_once_an_hour(
    server: Server, alias: MakeAlias, caplog: pytest.LogCaptureFixture, queries_again: bool
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    server.set_idle_timeout(1)
    for _ in range(2):
        with contextlib.suppress(OperationalError), fresh_connections:
            pause_too_long(server, probe)
            if queries_again:
                session(probe)
    warnings = [record.getMessage() for record in caplog.records if "unused" in record.getMessage()]
    assert len(warnings) == 1
    assert "sessions.py:" in warnings[0]  # where session() is
    assert "idle for 1 s: call release_connections()" in warnings[0]


@pytest.mark.usefixtures("unwarned")
def test_a_pause_before_a_unit_is_not_logged(
    server: Server, alias: MakeAlias, caplog: pytest.LogCaptureFixture
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    server.set_idle_timeout(1)
    pause_too_long(server, probe)
    with contextlib.suppress(OperationalError):
        session(probe)
    with fresh_connections:
        pass
    assert "unused" not in caplog.text


@pytest.mark.usefixtures("unwarned")
def test_a_connection_that_was_released_before_the_pause_is_not_logged(
    server: Server, alias: MakeAlias, caplog: pytest.LogCaptureFixture
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)
    server.set_idle_timeout(1)
    other = alias(server, "other")
    with fresh_connections:
        session(probe)
        release_connections()
        pause_too_long(server, other)
        release_connections()
        session(probe)
    assert "unused" not in caplog.text
