"""One event loop for a life: tasks live on between ticks, and the ORM stays on its thread."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections, transaction
from django.dispatch import Signal
from django.utils import translation

from daemonkit import BaseDaemonCommand, Every, Exit, Iteration, fresh_connections, job
from daemonkit.testing import FakeClock
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias, Setup
from tests.kit.sessions import is_gone, kill_all, note, notes, run, session

HERE = threading.get_ident


@pytest.fixture(autouse=True)
def no_loop_is_left() -> Iterator[None]:
    yield
    eventually(lambda: not loop_threads())


def loop_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "daemonkit-event-loop"]


class Daemon(BaseDaemonCommand):
    """What it does in a life is in ``did``."""

    schedule = Every(seconds=60)
    stop_timeout = 5.0
    ledger = False

    def __init__(self) -> None:
        super().__init__()
        self.did: list[Any] = []


def live(daemon: Daemon, ticks: int = 1, **options: Any) -> list[Any]:
    settings = {"max_ticks": ticks, "clock": FakeClock(), "verbosity": 0, **options}
    call_command(daemon, **settings)
    return daemon.did


async def on_its_thread() -> int:
    """The thread on which the ORM would work."""
    return await sync_to_async(HERE)()


# Ticks


def test_ticks_lifespan_and_on_error_share_one_loop_on_a_thread_of_its_own() -> None:
    class Command(Daemon):
        def note(self) -> None:
            self.did.append(asyncio.get_running_loop())
            assert threading.current_thread().name == "daemonkit-event-loop"

        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            self.note()
            yield
            self.note()

        async def tick(self) -> None:
            self.note()
            raise ValueError

        async def on_error(self, iteration: Iteration) -> None:
            self.note()

    did = live(Command(), 3, raise_errors=False)
    assert len(did) == 8
    assert len(set(did)) == 1


def test_a_task_that_a_tick_has_started_lives_on_between_ticks() -> None:
    class Command(Daemon):
        async def count(self) -> None:
            while True:
                self.did.append(await self.asked.get())

        async def tick(self) -> None:
            if not self.did:
                self.asked: asyncio.Queue[int] = asyncio.Queue()
                self.task = asyncio.create_task(self.count())
            self.asked.put_nowait(len(self.did))
            while not self.asked.empty():
                await asyncio.sleep(0)

    assert live(Command(), 3) == [0, 1, 2]


def test_a_sync_tick_uses_what_an_async_lifespan_has_opened_by_async_to_sync() -> None:
    class Command(Daemon):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            self.loop = asyncio.get_running_loop()
            yield

        def tick(self) -> None:
            async_to_sync(self.ask)()

        async def ask(self) -> None:
            self.did.append(asyncio.get_running_loop() is self.loop)

    assert live(Command(), 2) == [True, True]


def test_a_function_that_is_a_coroutine_becomes_a_daemon() -> None:
    call_command(
        "run_daemon", "tests.test_event_loop.on_its_thread", "--every", "1s", "--max-ticks", "2"
    )


def test_bare_iterates_each_have_a_loop_of_their_own() -> None:
    class Command(Daemon):
        async def tick(self) -> int:
            self.did.append(asyncio.get_running_loop())
            return await on_its_thread()

    daemon = Command()
    assert [daemon.iterate().result for _ in range(2)] == [HERE(), HERE()]
    assert len(set(daemon.did)) == 2
    assert loop_threads() == []


def test_a_daemon_without_async_code_starts_no_loop() -> None:
    class Command(Daemon):
        def tick(self) -> None:
            self.did.append(loop_threads())

    assert live(Command(), 2) == [[], []]


def test_wait_is_refused_in_a_coroutine_and_works_on_another_thread() -> None:
    class Command(Daemon):
        async def tick(self) -> None:
            with pytest.raises(RuntimeError, match="would block the event loop: write await"):
                self.wait(1)
            self.did.append(await asyncio.to_thread(self.wait, 1))

    assert live(Command()) == [True]


# The ORM's thread


def test_the_orm_works_on_the_thread_that_runs_the_life_and_keeps_its_session(
    setup: Setup,
) -> None:
    _, probe = setup(CONN_MAX_AGE=None)

    class Command(Daemon):
        async def tick(self) -> None:
            self.did.append(await sync_to_async(session)(probe))
            self.did.append(await on_its_thread())

    first, thread, second, same_thread = live(Command(), 2)
    assert thread == same_thread == HERE()
    assert first == second or connections[probe].settings_dict["OPTIONS"].get("pool")


@pytest.mark.parametrize("kind", ["tick", "job"])
def test_the_orm_works_inside_the_callers_transaction(server: Server, alias: MakeAlias,
                                                      kind: str) -> None:  # fmt: skip
    probe = alias(server)

    async def work() -> None:
        await sync_to_async(note)(probe, "of the daemon")
        await asyncio.create_task(sync_to_async(note)(probe, "of its task"))

    class Ticking(Daemon):
        async def tick(self) -> None:
            await work()

    class Working(Daemon):
        schedule = None  # type: ignore[assignment]

        @job(Every(seconds=1))
        async def turn(self) -> None:
            await work()

    with transaction.atomic(probe):
        live(Ticking() if kind == "tick" else Working())
        with connections[probe].cursor() as cursor:
            cursor.execute("SELECT note FROM entry ORDER BY id")
            assert [row[0] for row in cursor.fetchall()] == ["of the daemon", "of its task"]
        transaction.set_rollback(True, using=probe)
    assert notes(server) == []


def test_a_tick_whose_session_was_killed_while_idle_does_not_fail(setup: Setup) -> None:
    server, probe = setup(CONN_MAX_AGE=None)

    class Command(Daemon):
        async def tick(self) -> None:
            await sync_to_async(note)(probe, "ticked")
            await sync_to_async(kill_all, thread_sensitive=False)(server)

    live(Command(), 3)
    assert notes(server) == ["ticked"] * 3


def test_a_task_has_its_orm_work_done_between_ticks(setup: Setup) -> None:
    server, probe = setup(CONN_MAX_AGE=None)

    class Command(Daemon):
        schedule = Every(seconds=3600)

        async def work_later(self) -> None:
            await self.has_ticked.wait()
            for _ in range(3):
                self.did.append(await sync_to_async(session)(probe))
                await sync_to_async(kill_all, thread_sensitive=False)(server)
            self.did.append(await on_its_thread())
            self.life.give_up(Exit.MAX_FAILURES, "has done all")

        async def tick(self) -> None:
            self.has_ticked = asyncio.Event()
            self.task = asyncio.create_task(self.work_later())
            asyncio.get_running_loop().call_soon(self.has_ticked.set)

    daemon = Command()
    with pytest.raises(CommandError, match="has done all"):
        call_command(daemon, verbosity=0)
    *sessions, thread = daemon.did
    assert thread == HERE()
    assert len(set(sessions)) == 3


def test_a_task_keeps_no_session_while_the_daemon_waits_at_conn_max_age_0(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=0)

    class Command(Daemon):
        schedule = Every(seconds=3600)

        async def work_later(self) -> None:
            used = await sync_to_async(session)(probe)
            await sync_to_async(eventually, thread_sensitive=False)(is_gone(server, used))
            self.life.give_up(Exit.MAX_FAILURES, "has done all")

        async def tick(self) -> None:
            self.task = asyncio.create_task(self.work_later())

    with pytest.raises(CommandError, match="has done all"):
        call_command(Command(), verbosity=0)
    assert server.sessions() == set()


def test_a_coroutine_that_another_thread_sends_to_the_loop_has_its_orm_work_done_here() -> None:
    class Command(Daemon):
        async def tick(self) -> None:
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(threading.Thread(target=self.send, args=[loop]).run)

        def send(self, loop: asyncio.AbstractEventLoop) -> None:
            empty = contextvars.Context()
            sent = empty.run(asyncio.run_coroutine_threadsafe, on_its_thread(), loop)
            self.did.append(sent.result(10))

    assert live(Command()) == [HERE()]


def test_a_tick_is_a_unit_of_work_of_its_own_beside_a_coroutine_that_is_in_one(
    setup: Setup,
) -> None:
    server, probe = setup(CONN_MAX_AGE=None)

    class Command(Daemon):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            self.holds = asyncio.Event()
            task = asyncio.create_task(self.hold())
            await self.holds.wait()
            yield
            task.cancel()

        @fresh_connections
        async def hold(self) -> None:
            await sync_to_async(session)(probe)
            self.holds.set()
            await asyncio.Event().wait()

        def tick(self) -> None:
            if not self.did:
                connections[probe].set_autocommit(False)
                note(probe, "left open by the first tick")
            else:
                run(probe, "COMMIT")
            self.did.append("ticked")

    assert live(Command(), 2) == ["ticked"] * 2
    assert notes(server) == []


def test_async_receivers_and_async_to_sync_work_in_sync_work() -> None:
    asked = Signal()

    class Command(Daemon):
        async def receive(self, **_: Any) -> None:
            self.did.append(asyncio.get_running_loop() is self.loop)
            self.did.append(await on_its_thread() == HERE() or threading.main_thread().ident)

        def send(self) -> None:
            asked.send(self)

        async def tick(self) -> None:
            self.loop = asyncio.get_running_loop()
            asked.connect(self.receive)
            await sync_to_async(self.send)()

    assert live(Command()) == [True, threading.main_thread().ident]


def test_asyncio_run_in_sync_work_of_a_coroutine_says_what_to_write() -> None:
    class Command(Daemon):
        async def tick(self) -> None:
            await sync_to_async(asyncio.run)(on_its_thread())

    with pytest.raises(RuntimeError, match=r"use async_to_sync\(\) instead of asyncio.run"):
        live(Command())


def test_a_daemon_may_be_called_from_async_code() -> None:
    class Command(Daemon):
        async def tick(self) -> None:
            self.did.append(await on_its_thread())

    async def call() -> list[Any]:
        return await sync_to_async(live)(Command(), 2)

    assert async_to_sync(call)() == [HERE(), HERE()]
    assert len(set(asyncio.run(call()))) == 1


NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="")


def test_a_coroutine_sees_the_context_of_the_daemon() -> None:
    class Command(Daemon):
        async def tick(self) -> None:
            self.did += [NAME.get(), translation.get_language()]
            self.did.append(await sync_to_async(translation.get_language)())

    token = NAME.set("of the test")
    try:
        with translation.override("de"):
            assert live(Command()) == ["of the test", "de", "de"]
    finally:
        NAME.reset(token)


# Jobs


def test_async_jobs_do_their_orm_work_on_threads_of_their_own_at_the_same_time(
    setup: Setup,
) -> None:
    server, probe = setup(CONN_MAX_AGE=None)
    both = threading.Barrier(2, timeout=10)

    class Command(Daemon):
        schedule = None  # type: ignore[assignment]

        async def work(self) -> None:
            self.did.append((asyncio.get_running_loop(), await on_its_thread()))
            await sync_to_async(self.meet)()

        def meet(self) -> None:
            note(probe, f"session {session(probe)}")
            both.wait()

        @job(Every(seconds=1))
        async def one(self) -> None:
            await self.work()

        @job(Every(seconds=1))
        async def other(self) -> None:
            await self.work()

    did = live(Command(), 2, once=True)
    assert len({loop for loop, _ in did}) == 1
    assert len({thread for _, thread in did} - {HERE()}) == 2
    assert len(set(notes(server))) == 2
    if not connections[probe].settings_dict["OPTIONS"].get("pool"):
        eventually(lambda: not server.sessions())


def test_a_job_may_wait_for_a_task_that_needs_the_orm_while_the_daemon_ends() -> None:
    class Command(Daemon):
        schedule = None  # type: ignore[assignment]

        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            self.asked: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()
            task = asyncio.create_task(self.answer())
            yield
            task.cancel()

        async def answer(self) -> None:
            while True:
                (await self.asked.get()).set_result(await on_its_thread())

        @job(Every(seconds=1))
        async def ask(self) -> None:
            answer = asyncio.get_running_loop().create_future()
            self.asked.put_nowait(answer)
            self.did.append(await answer)

    assert live(Command(), once=True) == [HERE()]


def test_what_a_task_of_a_job_needs_when_the_job_has_ended_is_done_by_the_daemons_thread() -> None:
    class Command(Daemon):
        schedule = None  # type: ignore[assignment]

        async def work_later(self) -> None:
            while not self.is_ended:
                await asyncio.sleep(0.001)
            self.did.append(await on_its_thread())
            self.life.give_up(Exit.MAX_FAILURES, "has done all")

        is_ended = False

        @job(Every(seconds=0.001))
        async def turn(self) -> None:
            if self.life.last is None:
                self.task = asyncio.create_task(self.work_later())
            else:  # the run that started it has ended
                self.is_ended = True

    daemon = Command()
    with pytest.raises(CommandError, match="has done all"):
        call_command(daemon, verbosity=0)
    assert daemon.did == [HERE()]


# Failures


def test_a_failed_async_tick_keeps_nothing_alive() -> None:
    class Row: ...

    rows: list[weakref.ref[Row]] = []

    class Command(Daemon):
        async def tick(self) -> None:
            self.did.append(sum(row() is not None for row in rows))
            row = Row()
            rows.append(weakref.ref(row))
            await asyncio.sleep(0)
            raise ValueError("a bad row")

    gc.collect()
    gc.disable()
    try:
        assert live(Command(), 5, raise_errors=False) == [0] * 5
    finally:
        gc.enable()


@pytest.mark.parametrize("where", ["tick", "task", "job"])
def test_system_exit_ends_the_process_wherever_it_is_raised(where: str) -> None:
    async def end() -> None:
        raise SystemExit(3)

    class Ticking(Daemon):
        async def tick(self) -> None:
            if where == "tick":
                await end()
            self.task = asyncio.create_task(end())

    class Working(Daemon):
        schedule = None  # type: ignore[assignment]

        @job(Every(seconds=1))
        async def turn(self) -> None:
            await end()

    with pytest.raises(SystemExit) as raised:
        call_command(Working() if where == "job" else Ticking(), verbosity=0)
    assert raised.value.code == 3


def test_an_async_on_error_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    class Command(Daemon):
        async def tick(self) -> None:
            raise ValueError

        async def on_error(self, iteration: Iteration) -> None:
            await asyncio.sleep(0)
            self.did.append(iteration.number)
            raise RuntimeError("no network")

    assert live(Command(), 2, raise_errors=False) == [1, 2]
    assert "on_error() failed" in caplog.text


# The end


def test_tasks_are_cancelled_when_the_daemon_ends_and_may_still_use_the_orm(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server)

    class Command(Daemon):
        async def work(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await sync_to_async(note)(probe, "cleaned up")

        async def tick(self) -> None:
            self.task = asyncio.create_task(self.work())
            await asyncio.sleep(0)

    live(Command())
    assert notes(server) == ["cleaned up"]


def test_a_task_that_does_not_end_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Command(Daemon):
        stop_timeout = 0.05

        async def refuse(self) -> None:
            while not self.may_end:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)

        async def tick(self) -> None:
            self.task = asyncio.create_task(self.refuse(), name="price feed")
            await asyncio.sleep(0)

        may_end = False

    daemon = Command()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asyncio's own, for a task that was given up
        live(daemon)
        assert "did not end: price feed" in caplog.text
        daemon.may_end = True
        del daemon
        gc.collect()


# Lifespan


def test_a_task_group_in_lifespan_lives_as_long_as_the_daemon() -> None:
    class Command(Daemon):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            async with asyncio.TaskGroup() as self.tasks, asyncio.timeout(60):
                self.entered_in = asyncio.current_task()
                yield
                self.did.append(asyncio.current_task() is self.entered_in)

        async def tick(self) -> None:
            self.tasks.create_task(self.work())

        async def work(self) -> None:
            self.did.append("work")

    assert live(Command(), 2) == ["work", "work", True]


def test_a_task_group_that_fails_ends_the_daemon_with_its_error() -> None:
    class Command(Daemon):
        schedule = Every(seconds=3600)

        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            async with asyncio.TaskGroup() as self.tasks:
                yield

        async def tick(self) -> None:
            self.tasks.create_task(self.fail())

        async def fail(self) -> None:
            raise ValueError("the feed is gone")

    with pytest.raises(ExceptionGroup, match="unhandled errors in a TaskGroup"):
        call_command(Command(), verbosity=0)


def test_lifespan_sees_what_ends_the_daemon() -> None:
    class Command(Daemon):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            try:
                yield
            except SystemExit as end:
                self.did.append(end.code)
                raise

        async def tick(self) -> None:
            raise SystemExit(4)

    daemon = Command()
    with pytest.raises(SystemExit):
        live(daemon)
    assert daemon.did == [4]


def test_an_async_lifespan_that_needs_a_database_that_is_away_is_opened_again() -> None:
    class Command(Daemon):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            self.did.append("open")
            if len(self.did) == 1:
                raise OperationalError(2003, "Can't connect to MySQL server")
            yield
            self.did.append("closed")

        async def tick(self) -> None:
            self.did.append("tick")

    did = live(Command(), raise_errors=False)
    assert did == ["open", "open", "tick", "closed"]


def test_an_async_lifespan_that_fails_ends_the_daemon_with_its_error() -> None:
    class Command(Daemon):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            raise ValueError("no key")
            yield

        async def tick(self) -> None: ...

    with pytest.raises(ValueError, match="no key"):
        live(Command())


def test_the_orm_in_lifespan_is_a_unit_of_work_when_it_opens_and_when_it_closes(
    setup: Setup,
) -> None:
    server, probe = setup(CONN_MAX_AGE=None)

    class Command(Daemon):
        @contextlib.asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            await sync_to_async(note)(probe, "opened")
            yield
            await sync_to_async(kill_all, thread_sensitive=False)(server)
            await sync_to_async(run)(probe, "INSERT INTO entry (note) VALUES ('closed')")

        def tick(self) -> None:
            kill_all(server)

    live(Command())
    assert notes(server)[0] == "opened"


async def _lifespan_without_decorator(self: BaseDaemonCommand) -> None: ...


async def _lifespan_generator(self: BaseDaemonCommand) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("lifespan", [_lifespan_without_decorator, _lifespan_generator])
def test_an_async_lifespan_without_its_decorator_is_refused(
    lifespan: Callable[[Any], Awaitable[None] | AsyncIterator[None]],
) -> None:
    daemon = type("Command", (Daemon,), {"tick": lambda self: None, "lifespan": lifespan})
    with pytest.raises(CommandError, match="put @asynccontextmanager above it") as raised:
        live(daemon())
    assert raised.value.returncode == 2
