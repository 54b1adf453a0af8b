"""The promises about the pool: its threads' connections, counted on real servers."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from textwrap import dedent

import pytest
from django.db import OperationalError, connections, transaction

from daemonkit import BaseDaemonCommand, Every, Iteration, Pool
from lab.processes import ROOT, child_environment, run_python
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import note, notes, session


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(threads=4, name="tested") as pool:
        yield pool
    assert not threads_of("tested")


def together(pool: Pool, threads: int, work: object = None) -> list[int]:
    """Keep this many threads busy at the same time."""
    barrier = threading.Barrier(threads, timeout=20)

    def meet() -> int:
        found = work() if callable(work) else 0
        barrier.wait()
        return int(found)

    return [future.result(20) for future in [pool.submit(meet) for _ in range(threads)]]


def test_work_is_done_on_another_thread_and_its_result_or_error_is_in_the_future(
    pool: Pool,
) -> None:
    assert pool.submit(threading.get_ident).result(20) != threading.get_ident()
    assert pool.submit(divmod, 7, 2).result(20) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 7, 0).result(20)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_process_is_kept_in_the_future_and_the_thread_goes_on(
    pool: Pool, kind: type[BaseException]
) -> None:
    def leave() -> None:
        raise kind(3)

    assert isinstance(pool.submit(leave).exception(20), kind)
    assert pool.submit(len, "abc").result(20) == 3


def test_threads_start_when_needed_up_to_the_limit(pool: Pool) -> None:
    assert not threads_of("tested")
    pool.submit(len, "").result(20)
    assert len(threads_of("tested")) == 1
    together(pool, 4)
    wait([pool.submit(len, "") for _ in range(100)])
    assert len(threads_of("tested")) == 4


@pytest.mark.parametrize("age", [0, 300, None])
def test_threads_that_end_leave_no_session_behind(
    server: Server, alias: MakeAlias, age: int | None
) -> None:
    name = alias(server, CONN_MAX_AGE=age)
    gc.disable()  # the collector would close what a thread left behind
    try:
        with Pool(threads=4) as pool:
            assert len(set(together(pool, 4, lambda: session(name)))) == 4
            assert age == 0 or len(server.sessions()) == 4
        eventually(lambda: not server.sessions())
    finally:
        gc.enable()


def test_at_max_age_0_a_session_ends_with_its_unit_of_work(
    pool: Pool, server: Server, alias: MakeAlias
) -> None:
    name = alias(server)
    together(pool, 4, lambda: session(name))
    eventually(lambda: not server.sessions())


def test_a_thread_that_waits_closes_what_is_due(
    pool: Pool, server: Server, alias: MakeAlias
) -> None:
    name = alias(server, CONN_MAX_AGE=1)
    together(pool, 4, lambda: session(name))
    assert len(server.sessions()) == 4
    eventually(lambda: not server.sessions(), within=10)


def test_a_kept_session_that_was_killed_costs_no_work(
    pool: Pool, server: Server, alias: MakeAlias
) -> None:
    name = alias(server, CONN_MAX_AGE=None)
    together(pool, 4, lambda: session(name))
    server.kill_sessions()
    assert len(together(pool, 4, lambda: session(name))) == 4


def test_a_future_is_done_when_its_unit_of_work_has_ended(
    pool: Pool, server: Server, alias: MakeAlias
) -> None:
    """A callback does not see the work's transaction, nor a connection that the work broke."""
    name = alias(server, CONN_MAX_AGE=None)
    seen: list[bool] = []

    def leave_open() -> None:
        connections[name].set_autocommit(False)
        note(name, "abandoned")

    future = pool.submit(leave_open)
    future.add_done_callback(lambda _: seen.append(connections[name].connection is None))
    future.result(20)
    together(pool, 4)  # all callbacks have run
    assert seen == [True]
    assert notes(server) == []


def test_work_that_ends_in_a_database_error_drops_its_connection(
    pool: Pool, server: Server, alias: MakeAlias
) -> None:
    name = alias(server, CONN_MAX_AGE=None)

    def fail() -> None:
        with transaction.atomic(name):
            note(name, "rolled back")
            server.kill_session(session(name))
            session(name)

    assert isinstance(pool.submit(fail).exception(20), OperationalError)
    eventually(lambda: not server.sessions())
    assert notes(server) == []


def test_close_does_what_was_submitted_and_takes_nothing_more() -> None:
    pool = Pool(threads=1)
    futures = [pool.submit(len, "ab") for _ in range(50)]
    assert pool.close()
    assert [future.result(0) for future in futures] == [2] * 50
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(len, "")
    assert pool.close()


def test_close_can_cancel_tasks_that_have_not_started_and_stops_waiting_in_time() -> None:
    pool, go_on, begun = Pool(threads=1), threading.Event(), threading.Event()
    running = pool.submit(lambda: begun.set() or go_on.wait(20))
    waiting = pool.submit(len, "")
    assert begun.wait(20)
    assert not pool.close(cancel=True, timeout=0.05)
    with pytest.raises(CancelledError):
        waiting.result(20)
    go_on.set()
    assert pool.close(timeout=20)
    assert running.result(0)


def test_the_task_of_a_cancelled_future_does_not_run(pool: Pool) -> None:
    go_on, done = threading.Event(), []
    blocking = [pool.submit(go_on.wait, 20) for _ in range(4)]
    unwanted = pool.submit(done.append, 1)
    assert unwanted.cancel()
    go_on.set()
    wait(blocking)
    together(pool, 4)
    assert done == []


def test_a_pool_that_is_forgotten_ends_its_threads() -> None:
    pool = Pool(name="forgotten")
    pool.submit(len, "").result(20)
    assert threads_of("forgotten")
    del pool
    gc.collect()
    eventually(lambda: not threads_of("forgotten"))


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_a_pool_needs_a_thread(threads: object) -> None:
    with pytest.raises(ValueError, match="threads"):
        Pool(threads=threads)  # type: ignore[arg-type]


def test_a_forked_child_has_a_pool_of_its_own_and_leaves_its_parents_sessions_alone(
    server: Server,
) -> None:
    script = """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python dislikes a fork beside threads
        import django
        django.setup()
        from daemonkit import Pool
        from django.db import connection

        def session():
            function = "CONNECTION_ID()" if connection.vendor == "mysql" else "pg_backend_pid()"
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {function}")
                return cursor.fetchone()[0]

        pool = Pool(threads=1)
        before = pool.submit(session).result(20)
        if child := os.fork():
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status == 0, status
            assert pool.submit(session).result(20) == before
        else:
            assert pool.submit(session).result(20) != before
            pool.close()
            sys.exit(0)
    """
    ran = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        env=child_environment(
            {
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "DATABASE_URL": server.url,
                "CONN_MAX_AGE": "none",
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "sample_site"))),
            }
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [
        ("sys.exit(7)", 7, ""),
        ("sys.exit('no more')", 1, "no more\n"),
        ("sys.exit()", 0, ""),
        ("raise ValueError('of the child')", 1, "ValueError: of the child"),
        ("pass", 0, ""),
    ],
)
def test_a_child_that_work_forks_ends_with_the_work_as_python_ends(
    server: Server, ending: str, code: int, says: str
) -> None:
    script = f"""
        import atexit, os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import django
        django.setup()
        from daemonkit import Pool
        from django.db import connection

        home = os.getpid()
        atexit.register(lambda: os.getpid() != home and print("atexit of the child", flush=True))

        def session():
            function = "CONNECTION_ID()" if connection.vendor == "mysql" else "pg_backend_pid()"
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {{function}}")
                return cursor.fetchone()[0]

        def work():
            if child := os.fork():
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            session()
            {ending}

        with Pool(threads=1) as pool:
            before = pool.submit(session).result(20)
            assert pool.submit(work).result(20) == {code}
            assert pool.submit(session).result(20) == before
    """
    ran = run_python(
        script,
        DJANGO_SETTINGS_MODULE="config.settings",
        DATABASE_URL=server.url,
        CONN_MAX_AGE="none",
        PYTHONPATH=os.pathsep.join(map(str, (ROOT, ROOT / "sample_site"))),
    )
    assert ran.returncode == 0, ran.stderr
    assert says in ran.stderr
    assert ran.stdout == "atexit of the child\n"


# The tasks of a tick


class Submitting(BaseDaemonCommand):
    """Its tick submits a task that fails after a gate."""

    schedule = Every(1)
    detached = False
    asks = False

    def tick(self) -> None:
        self.future = self.pool.submit(self.work)
        if self.asks:
            self.future.exception()

    def work(self) -> None:
        time.sleep(0.1)
        self.has_ended = True
        raise ValueError("lost")


def iterate(**attributes: bool) -> tuple[Submitting, Iteration]:
    command = Submitting()
    command.has_ended = False  # type: ignore[attr-defined]
    vars(command).update(attributes)
    with Pool(1, detached=command.detached) as pool:
        command.pool = pool  # type: ignore[attr-defined]
        iteration = command.iterate()
        command.ended_in_tick = command.has_ended  # type: ignore[attr-defined]
    return command, iteration


def test_a_failed_task_that_nobody_asks_is_logged_and_fails_its_tick(
    caplog: pytest.LogCaptureFixture,
) -> None:
    command, iteration = iterate()
    assert command.ended_in_tick  # type: ignore[attr-defined]
    assert isinstance(iteration.error, ValueError)
    assert "the work of a Pool failed: ValueError: lost" in caplog.text


def test_a_task_that_was_asked_fails_no_tick(caplog: pytest.LogCaptureFixture) -> None:
    assert iterate(asks=True)[1].error is None
    assert not caplog.text


def test_a_detached_task_outlives_its_tick_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    command, iteration = iterate(detached=True)
    assert iteration.error is None
    assert not command.ended_in_tick  # type: ignore[attr-defined]
    del command.future
    gc.collect()
    assert "the work of a Pool failed: ValueError: lost" in caplog.text
