"""A unit of work that is interrupted at any point, by a cancellation or a signal handler."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Coroutine

import pytest
from asgiref.sync import sync_to_async
from django.db import Error, connections, transaction

from daemonkit import fresh_connections, release_connections
from daemonkit.connections.thread import this_thread
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.interruptions import Interrupter, Interruption, Steps, count_steps
from tests.kit.sessions import is_gone, kill_all, note, notes, run, session

OURS = "/daemonkit/connections/"
DJANGOS = "/django/db/"
SEED = 20261126

KINDS = ["mariadb", "postgres", "postgres pool"]

# psycopg complains of a connection that was interrupted before a wrapper held it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=KINDS)
def probe(request: pytest.FixtureRequest, alias: MakeAlias) -> tuple[Server, str]:
    kind, _, pool = request.param.partition(" ")
    server: Server = request.getfixturevalue(kind)
    if pool:
        pool = {"min_size": 1, "max_size": 2, "timeout": 5}
        return server, alias(server, CONN_MAX_AGE=0, OPTIONS={"pool": pool})
    return server, alias(server, CONN_MAX_AGE=None)


def block(alias: str, text: str) -> None:
    with fresh_connections, transaction.atomic(alias):
        note(alias, text)


def nested(alias: str, text: str) -> None:
    with fresh_connections:
        run(alias, "SELECT 1")
        with contextlib.ExitStack() as stack:
            stack.enter_context(fresh_connections)
            block(alias, text)


@fresh_connections
def decorated(alias: str, text: str) -> None:
    note(alias, text)


def careless(alias: str, text: str) -> None:
    """Leaves a transaction open."""
    with fresh_connections:
        connections[alias].set_autocommit(False)
        note(alias, text)


Work = Callable[[str, str], None]
WORK: list[Work] = [block, nested, decorated, careless]


def interrupt(
    work: Work, alias: str, number: int, *folders: str, steps: Steps = Steps.LINES
) -> str:
    """Do the work, interrupted at one step. Return the place of the step."""
    interrupter = Interrupter(*folders, steps=steps, number=number)
    with contextlib.suppress(Interruption, Error):  # in atomic() it may end in an error of Django's
        interrupter.run(lambda: work(alias, "interrupted"))
    return interrupter.place


def sample(steps: int, most: int) -> list[int]:
    """A random sample of the steps. With the variable DAEMONKIT_ALL_STEPS, all of them."""
    if "DAEMONKIT_ALL_STEPS" in os.environ:
        most = steps
    return sorted(random.Random(SEED).sample(range(steps), min(steps, most)))


def check(alias: str, place: str) -> None:
    """The thread is in no unit of work, and its next one is healthy."""
    thread = this_thread()
    assert not thread.in_unit, place
    with fresh_connections, transaction.atomic(alias):
        note(alias, "healthy")
    assert len(connections[alias].execute_wrappers) == 1, place


@pytest.mark.parametrize("connects", [False, True], ids=["connected", "connects"])
@pytest.mark.parametrize("work", WORK)
def test_an_interruption_at_any_step_of_ours_leaves_the_thread_healthy(
    probe: tuple[Server, str], work: Work, connects: bool
) -> None:
    server, alias = probe
    work(alias, "warm")

    def begin() -> None:
        if connects:
            connections[alias].close()

    begin()
    steps = count_steps(lambda: work(alias, "counted"), OURS)
    chosen = sample(steps, 40) if connects else sample(steps, 150)
    for number in chosen:
        begin()
        check(alias, interrupt(work, alias, number, OURS))
    assert notes(server).count("healthy") == len(chosen)
    assert len(server.sessions()) <= 4  # a pool may open one too many


@pytest.mark.parametrize("work", WORK)
def test_an_interruption_at_any_step_leaves_no_sqlite_file_locked(
    alias: MakeAlias, work: Work
) -> None:
    probe = alias(None, CONN_MAX_AGE=0)
    work(probe, "warm")
    folders = (OURS, DJANGOS)
    steps = count_steps(lambda: work(probe, "counted"), *folders, steps=Steps.SIGNALS)
    path = connections[probe].settings_dict["NAME"]
    for number in sample(steps, 200):
        check(probe, interrupt(work, probe, number, *folders, steps=Steps.SIGNALS))
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as other, other:
            other.execute("INSERT INTO entry (note) VALUES ('other')")


def test_an_interruption_between_any_two_instructions_leaves_the_thread_healthy(
    alias: MakeAlias,
) -> None:
    probe = alias(None, CONN_MAX_AGE=None)
    nested(probe, "warm")
    kind = Steps.INSTRUCTIONS
    steps = count_steps(lambda: nested(probe, "counted"), OURS, steps=kind)
    for number in sample(steps, 80):
        check(probe, interrupt(nested, probe, number, OURS, steps=kind))


@pytest.mark.parametrize("work", WORK)
def test_an_interruption_inside_of_django_leaves_the_thread_healthy(
    probe: tuple[Server, str], work: Work
) -> None:
    server, alias = probe
    work(alias, "warm")
    folders = (OURS, DJANGOS)
    steps = count_steps(lambda: work(alias, "counted"), *folders, steps=Steps.SIGNALS)
    chosen = sample(steps, 60)
    for number in chosen:
        check(alias, interrupt(work, alias, number, *folders, steps=Steps.SIGNALS))
    assert notes(server).count("healthy") == len(chosen)


@pytest.mark.parametrize("work", [block, decorated])
def test_an_interruption_of_a_unit_inside_a_callers_transaction_loses_no_row_of_the_caller(
    probe: tuple[Server, str], work: Work
) -> None:
    server, alias = probe
    with transaction.atomic(alias):
        steps = count_steps(lambda: work(alias, "counted"), OURS)
    chosen = sample(steps, 60)
    for number in chosen:
        with transaction.atomic(alias):
            note(alias, "caller's")
            with contextlib.suppress(Interruption), transaction.atomic(alias):
                Interrupter(OURS, number=number).run(lambda: work(alias, "interrupted"))
        assert not this_thread().in_unit
    assert notes(server).count("caller's") == len(chosen)
    connections[alias].close()


# Coroutines

names = (f"probe{number}" for number in itertools.count())
"""A new alias for each test: the thread that serves coroutines keeps its wrappers."""


@fresh_connections
async def handle(alias: str) -> int:
    return await sync_to_async(session)(alias)


async def by_block(alias: str) -> int:
    async with fresh_connections:
        return await sync_to_async(session)(alias)


@pytest.mark.parametrize("work", [handle, by_block])
@pytest.mark.parametrize("loop_turns", range(6))
@pytest.mark.parametrize("is_thread_busy", [False, True])
def test_a_coroutine_that_is_cancelled_at_any_await_leaves_the_thread_healthy(
    server: Server,
    alias: MakeAlias,
    work: Callable[[str], Coroutine[None, None, int]],
    loop_turns: int,
    is_thread_busy: bool,
) -> None:
    probe = alias(server, next(names), CONN_MAX_AGE=None)
    gate = threading.Event()

    async def main() -> None:
        await work(probe)
        if is_thread_busy:  # what the coroutine asks of the thread waits in its queue
            busy = asyncio.create_task(sync_to_async(gate.wait)(20))
            await asyncio.sleep(0)
        task = asyncio.create_task(work(probe))
        for _ in range(loop_turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        gate.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if is_thread_busy:
            await busy
        assert not await sync_to_async(lambda: this_thread().in_unit)()
        await sync_to_async(kill_all, thread_sensitive=False)(server)
        await work(probe)
        await sync_to_async(fresh_connections(session))(probe)
        await sync_to_async(lambda: connections[probe].close())()

    asyncio.run(main())


def test_a_coroutine_whose_loop_was_closed_while_it_ran_holds_nothing(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, next(names), CONN_MAX_AGE=0)
    entered = threading.Event()

    async def endless() -> None:
        async with fresh_connections:
            await sync_to_async(session)(probe)
            entered.set()
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(endless())
        while not entered.is_set():
            await asyncio.sleep(0.001)
        assert not task.done()

    asyncio.run(main())

    async def later() -> bool:
        await handle(probe)
        return await sync_to_async(lambda: this_thread().in_unit)()

    assert not asyncio.run(later())
    eventually(lambda: not server.sessions())


# release_connections()


def test_release_connections_is_awaited_in_a_coroutine(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, next(names), CONN_MAX_AGE=None)

    @fresh_connections
    async def job() -> None:
        first = await sync_to_async(session)(probe)
        await release_connections()
        await sync_to_async(eventually, thread_sensitive=False)(is_gone(server, first))
        await sync_to_async(session)(probe)
        await release_connections()

    asyncio.run(job())


def test_release_connections_without_await_in_a_coroutine_is_warned_of(
    alias: MakeAlias,
) -> None:
    def forget() -> None:
        async def forgetful() -> None:
            release_connections()

        asyncio.run(forgetful())
        gc.collect()

    with pytest.warns(RuntimeWarning, match="never awaited"):
        forget()


def test_release_connections_inside_atomic_is_refused_in_a_coroutine_too(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, next(names), CONN_MAX_AGE=None)

    @fresh_connections
    async def job() -> None:
        block = transaction.atomic(probe)
        await sync_to_async(block.__enter__)()
        with pytest.raises(transaction.TransactionManagementError, match="inside atomic"):
            await release_connections()
        await sync_to_async(block.__exit__)(None, None, None)
        await release_connections()

    asyncio.run(job())
