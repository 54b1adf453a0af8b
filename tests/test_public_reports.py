"""Public bug reports of connections, each tried on real servers. A docstring names the report."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import (
    IntegrityError,
    OperationalError,
    close_old_connections,
    connections,
    transaction,
)
from django.db.transaction import TransactionManagementError
from django.dispatch import Signal

from daemonkit import fresh_connections
from lab.servers import MariaDB, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias, Setup
from tests.kit.sessions import kill_all, note, notes, run, session


def test_a_connection_that_timed_out_in_a_long_calculation_is_not_used_by_the_next_unit(
    setup: Setup,
) -> None:
    """procrastinate #1180, "the connection is closed", and django-apscheduler #143."""
    server, alias = setup(CONN_MAX_AGE=None)
    with fresh_connections:
        note(alias, "before the calculation")
        kill_all(server)  # as the server's idle timeout does, while the unit calculates
    with fresh_connections:
        note(alias, "after the calculation")
    assert notes(server) == ["before the calculation", "after the calculation"]


def test_an_error_that_was_swallowed_in_an_atomic_block_does_not_stop_the_next_unit(
    setup: Setup,
) -> None:
    """django-background-tasks #46 and #118, and celery #5048: "You can't execute queries until the
    end of the 'atomic' block" in every later task."""
    server, alias = setup(CONN_MAX_AGE=None)
    with pytest.raises(TransactionManagementError), fresh_connections:
        atomic = transaction.atomic(using=alias)
        atomic.__enter__()  # a decorator or generator that is never closed
        try:
            run(alias, "INSERT INTO entry (id, note) VALUES (1, 'a'), (1, 'b')")
        except IntegrityError:
            connections[alias].needs_rollback = True  # what Django sets in a nested block
        note(alias, "refused")
    with fresh_connections:
        note(alias, "the next task")
    assert notes(server) == ["the next task"]


def test_a_signal_handler_that_is_a_unit_of_work_may_run_in_its_senders_atomic_block(
    setup: Setup,
) -> None:
    """tubesync #1511, "Cannot open a new connection in an atomic block", and django-user-tasks
    #31: a handler that cares for connections closes its caller's."""
    server, alias = setup(CONN_MAX_AGE=0)
    sent = Signal()

    @fresh_connections
    def keep_history(**_: object) -> None:
        note(alias, "history")

    sent.connect(keep_history)
    with fresh_connections, transaction.atomic(using=alias):
        note(alias, "the sender's")
        sent.send(None)
        note(alias, "the sender's, afterwards")
    assert notes(server) == ["the sender's", "history", "the sender's, afterwards"]
    sent.disconnect(keep_history)


def test_a_driver_whose_commands_are_out_of_sync_is_replaced(
    mariadb: MariaDB, alias: MakeAlias
) -> None:
    """formhub #1129 and dejavu #194: (2014, "Commands out of sync") from then on, also in the
    rollback."""
    probe = alias(mariadb, CONN_MAX_AGE=None)
    with pytest.raises(Exception, match="out of sync"), fresh_connections:
        note(probe, "before")
        connections[probe].connection.query("SELECT 1")  # nobody fetches its result
        note(probe, "out of sync")
    with fresh_connections:
        note(probe, "the next unit")
    assert notes(mariadb) == ["before", "the next unit"]


def test_a_result_that_was_not_fetched_does_not_put_the_next_unit_out_of_sync(
    mariadb: MariaDB, alias: MakeAlias
) -> None:
    """The same reports, where the unit that leaves the result ends without an error."""
    probe = alias(mariadb, CONN_MAX_AGE=None)
    with fresh_connections:
        note(probe, "before")
        connections[probe].connection.query("SELECT 1")
    with fresh_connections:
        note(probe, "the next unit")
    assert notes(mariadb) == ["before", "the next unit"]


def test_a_cancelled_task_leaves_no_connection_on_its_thread(
    server: Server, alias: MakeAlias
) -> None:
    """fighthealthinsurance #899: a task is cancelled, and what its thread has opened stays open."""
    probe = alias(server, CONN_MAX_AGE=0)
    started, gate = threading.Event(), threading.Event()

    @fresh_connections
    def query() -> None:
        session(probe)
        started.set()
        gate.wait(20)
        session(probe)

    async def main() -> None:
        async with ThreadSensitiveContext():
            task = asyncio.create_task(sync_to_async(query)())
            while not started.is_set():
                await asyncio.sleep(0)
            task.cancel()
            gate.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    eventually(lambda: not server.sessions())


def test_threads_that_end_leave_no_session_though_connections_are_kept(
    server: Server, alias: MakeAlias
) -> None:
    """codex #838 and gunicorn #996: CONN_MAX_AGE keeps a connection on a thread that is about to
    end, so sessions pile up."""
    probe = alias(server, CONN_MAX_AGE=600)

    @fresh_connections
    def request() -> None:
        session(probe)

    async def main() -> None:
        for _ in range(8):
            async with ThreadSensitiveContext():
                await sync_to_async(request)()

    asyncio.run(main())
    gc.collect()
    eventually(lambda: not server.sessions())


def test_an_outage_behind_a_retry_in_the_unit_leaves_a_healthy_next_unit(setup: Setup) -> None:
    """django-dbconn-retry #130: a package reconnects within the unit, after Django's
    `closed_in_transaction` was set."""
    server, alias = setup(CONN_MAX_AGE=None)
    with pytest.raises(OperationalError), fresh_connections:
        with transaction.atomic(using=alias):
            note(alias, "lost")
            kill_all(server)
            try:
                session(alias)
            finally:
                connections[alias].close()  # sets closed_in_transaction
    with fresh_connections:
        note(alias, "the next unit")
    assert notes(server) == ["the next unit"]


def test_no_pool_is_exhausted_by_units_that_fail_on_many_threads(
    postgres: Server, alias: MakeAlias
) -> None:
    """pq #41 and django-async-backend #14: "connection pool exhausted" when work that fails is
    tried again on several threads."""
    probe = alias(postgres, OPTIONS={"pool": {"min_size": 1, "max_size": 4, "timeout": 20}})

    @fresh_connections
    def fail(number: int) -> None:
        session(probe)
        if number % 3 == 0:
            postgres.kill_sessions()
        run(probe, "SELECT nonsense")

    def worker() -> None:
        for number in range(12):
            with pytest.raises(Exception, match=r"nonsense|terminat|clos|connection"):
                fail(number)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with fresh_connections:
        note(probe, "the next unit")
    assert notes(postgres) == ["the next unit"]
    pool = connections[probe].pool
    eventually(lambda: pool.get_stats().get("requests_waiting", 0) == 0)
    eventually(lambda: pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"])


def test_djangos_own_care_inside_a_unit_does_no_harm(setup: Setup) -> None:
    """huey #291, threadmill #43 and celery's fixups call `close_old_connections()` themselves,
    before and after each task."""
    server, alias = setup(CONN_MAX_AGE=0)

    @fresh_connections
    def task(text: str) -> None:
        close_old_connections()
        note(alias, text)
        close_old_connections()
        note(alias, text)
        close_old_connections()

    for number in range(3):
        kill_all(server)
        task(f"{number}")
    assert notes(server) == ["0", "0", "1", "1", "2", "2"]
