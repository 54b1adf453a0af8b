"""The end of a thread closes its sessions, without the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import DatabaseError, connections, transaction

from daemonkit import fresh_connections
from lab.servers import PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import is_gone, run, session

THREADS = 5


@pytest.fixture(autouse=True)
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def in_threads(work: Callable[[int], int]) -> set[int]:
    """Do the work in threads that run at the same time, and wait until they have ended."""
    barrier = threading.Barrier(THREADS)

    def meet(number: int) -> int:
        barrier.wait(10)
        return work(number)

    with ThreadPoolExecutor(THREADS) as executor:
        return set(executor.map(meet, range(THREADS)))


def plainly(name: str) -> int:
    return session(name)


def in_a_unit(name: str) -> int:
    with fresh_connections:
        return session(name)


def in_a_unit_that_fails(name: str) -> int:
    found = in_a_unit(name)
    with contextlib.suppress(DatabaseError), fresh_connections:
        run(name, "SELECT 1 FROM no_such_table")
    with fresh_connections:
        return session(name) or found


def in_a_transaction_that_is_left_open(name: str) -> int:
    found = session(name)
    transaction.set_autocommit(False, using=name)
    run(name, "INSERT INTO entry (note) VALUES ('abandoned')")
    return found


WORKS = [plainly, in_a_unit, in_a_unit_that_fails, in_a_transaction_that_is_left_open]


@pytest.mark.parametrize("work", WORKS)
def test_the_sessions_of_a_thread_end_with_it(
    server: Server, alias: MakeAlias, work: Callable[[str], int]
) -> None:
    name = alias(server, CONN_MAX_AGE=None)
    found = in_threads(lambda _: work(name))
    assert len(found) == THREADS
    eventually(is_gone(server, *found))
    assert server.execute("SELECT COUNT(*) FROM entry") == [(0,)]


def test_the_sessions_of_asyncio_threads_end_with_them(server: Server, alias: MakeAlias) -> None:
    name = alias(server, CONN_MAX_AGE=None)

    async def main() -> set[int]:
        works = [asyncio.to_thread(in_a_unit, name) for _ in range(THREADS)]
        return set(await asyncio.gather(*works))

    eventually(is_gone(server, *asyncio.run(main())))


def test_a_connection_that_an_ended_thread_had_taken_from_a_pool_is_returned(
    postgres: PostgreSQL, alias: MakeAlias
) -> None:
    name = alias(postgres, OPTIONS={"pool": {"min_size": 1, "max_size": THREADS}})
    in_threads(lambda _: plainly(name))
    in_threads(lambda _: plainly(name))  # without the return it would time out
    stats = connections[name].pool.get_stats()
    assert stats["pool_available"] == stats["pool_size"]


def test_a_connection_that_another_thread_uses_outlives_its_own_thread(
    server: Server, alias: MakeAlias
) -> None:
    name = alias(server, CONN_MAX_AGE=None)

    def lend(_: int) -> tuple[object, int]:
        connections[name].inc_thread_sharing()
        return connections[name], session(name)

    with ThreadPoolExecutor(1) as executor:
        wrapper, theirs = executor.submit(lend, 0).result()
    with wrapper.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute("SELECT 1")
    assert theirs in server.sessions()
    wrapper.close()  # type: ignore[attr-defined]
    eventually(is_gone(server, theirs))


def test_sqlite_closes_its_file(alias: MakeAlias) -> None:
    name = alias(None)
    path = str(connections[name].settings_dict["NAME"])

    def work(_: int) -> int:
        run(name, "INSERT INTO entry (note) VALUES ('kept')")
        return 0

    in_threads(work)
    assert path not in open_files()


def open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists
            found.add(str(entry.readlink()))
    return found
