"""``@resource``: open across ticks, closed after one that failed, opened anew for the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from daemonkit import BaseDaemonCommand, Every, Exit, job, resource
from daemonkit.testing import FakeClock


class Noting(BaseDaemonCommand):
    """Notes what happens to its resource, and fails in the ticks that are named."""

    schedule = Every(1)
    fails_in: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.opened = self.ticks = 0

    @resource
    def client(self) -> Generator[int, None, None]:
        """Its number."""
        self.opened += 1
        number = self.opened
        self.said.append(f"open {number}")
        yield number
        self.said.append(f"close {number}")

    def tick(self) -> Any:
        self.ticks += 1
        self.said.append(f"use {self.client}")
        if self.ticks in self.fails_in:
            raise ValueError(self.ticks)


class AsyncNoting(Noting):
    @resource
    async def client(self) -> AsyncGenerator[int, None]:  # type: ignore[override]
        await asyncio.sleep(0)
        self.opened += 1
        number = self.opened
        self.said.append(f"open {number}")
        task = asyncio.current_task()
        yield number
        assert asyncio.current_task() is task
        self.said.append(f"close {number}")

    async def tick(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        Noting.tick(self)


BOTH = pytest.mark.parametrize("kind", [Noting, AsyncNoting])


def run(command: BaseDaemonCommand, ticks: int = 3, **options: Any) -> None:
    call_command(command, clock=FakeClock(), max_ticks=ticks, **{"raise_errors": False, **options})


@BOTH
def test_it_is_opened_once_and_closed_at_the_end(kind: type[Noting]) -> None:
    command = kind()
    run(command)
    assert command.said == ["open 1", "use 1", "use 1", "use 1", "close 1"]


@BOTH
def test_it_is_closed_after_a_failed_tick_and_opened_anew_for_the_next(kind: type[Noting]) -> None:
    command = kind()
    command.fails_in = (2,)
    run(command)
    assert command.said == ["open 1", "use 1", "use 1", "close 1", "open 2", "use 2", "close 2"]


def test_a_skipped_tick_leaves_it_open() -> None:
    class Command(Noting):
        def tick(self) -> None:
            super().tick()
            self.skip("closed on Sundays")

    command = Command()
    run(command, 2)
    assert command.said == ["open 1", "use 1", "use 1", "close 1"]


def test_a_bare_iterate_closes_it() -> None:
    command = Noting()
    assert command.iterate().error is None
    assert command.said == ["open 1", "use 1", "close 1"]


def test_it_is_not_opened_before_it_is_used() -> None:
    class Command(Noting):
        def tick(self) -> None:
            self.said.append("tick")

    command = Command()
    run(command, 1)
    assert command.said == ["tick"]


def test_it_is_closed_before_the_lifespan_ends_and_is_there_on_stop() -> None:
    class Command(Noting):
        @contextmanager
        def lifespan(self) -> Generator[None, None, None]:
            self.said.append("lifespan")
            yield
            self.said.append("end")

    command = Command()
    run(command, 1)
    assert command.said == ["lifespan", "open 1", "use 1", "close 1", "end"]


@pytest.mark.parametrize("is_async", [False, True])
def test_each_job_has_its_own_and_keeps_it_when_another_one_fails(is_async: bool) -> None:
    class Command(BaseDaemonCommand):
        ledger = False
        opened: list[int]

        @resource
        def sync_client(self) -> Generator[int, None, None]:
            self.opened.append(1)
            yield len(self.opened)

        @resource
        async def async_client(self) -> AsyncGenerator[int, None]:
            self.opened.append(1)
            yield len(self.opened)

        def note(self, name: str) -> None:
            found = self.async_client if is_async else self.sync_client
            self.found.setdefault(name, []).append(found)

        @job(Every(1))
        def good(self) -> None:
            self.note("good")

        @job(Every(1))
        def bad(self) -> None:
            self.note("bad")
            raise ValueError

    command = Command()
    command.opened, command.found = [], {}  # type: ignore[attr-defined]
    run(command, 6)  # type: ignore[arg-type]
    found: dict[str, list[int]] = command.found  # type: ignore[attr-defined]
    assert len(set(found["good"])) == 1
    assert len(set(found["bad"])) == len(found["bad"]) > 1
    assert not set(found["good"]) & set(found["bad"])


def test_an_error_while_opening_fails_the_tick_and_it_is_tried_again() -> None:
    class Command(Noting):
        @resource
        def client(self) -> Generator[int, None, None]:
            self.opened += 1
            if self.opened == 1:
                raise OSError("away")
            yield self.opened

    command = Command()
    run(command, 2)
    assert command.said == ["use 2"]


def test_an_error_while_closing_is_logged_and_hides_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Command(Noting):
        fails_in = (1,)

        @resource
        def client(self) -> Generator[int, None, None]:
            yield 1
            raise OSError("lost")

    with pytest.raises(ValueError, match="1"):
        run(Command(), raise_errors=True)
    assert "closing the resource client failed: OSError: lost" in caplog.text


def test_an_async_one_whose_task_group_has_failed_fails_the_next_tick_and_is_opened_anew() -> None:
    class Failing(AsyncNoting):
        async def fail(self) -> None:
            raise OSError("the heartbeat is lost")

        @resource
        async def client(self) -> AsyncGenerator[int, None]:  # type: ignore[override]
            self.opened += 1
            async with asyncio.TaskGroup() as group:
                if self.opened == 1:
                    group.create_task(self.fail())
                yield self.opened

        async def tick(self) -> None:  # type: ignore[override]
            self.ticks += 1
            self.said.append(f"use {self.client}")
            await asyncio.sleep(0.05)

    command = Failing()
    run(command, 3)
    assert command.said == ["use 1", "use 2"]


# Bad input


def test_a_method_that_does_not_yield_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"@resource client\(\) does not yield: open it"):

        @resource
        def client(self: object) -> int:  # type: ignore[arg-type]
            return 1


@pytest.mark.parametrize("fails_in", [(), (1,)])
@BOTH
def test_one_that_yields_twice_ends_with_2_and_a_sentence(
    kind: type[Noting], fails_in: tuple[int, ...]
) -> None:
    if kind is Noting:

        class Command(Noting):
            @resource
            def client(self) -> Generator[int, None, None]:
                yield 1
                yield 2
    else:

        class Command(AsyncNoting):  # type: ignore[no-redef]
            @resource
            async def client(self) -> AsyncGenerator[int, None]:
                yield 1
                yield 2

    command = Command()
    command.fails_in = fails_in
    with pytest.raises(CommandError, match=r"client\(\) yields twice") as refused:
        run(command)
    assert refused.value.returncode == Exit.USAGE


@BOTH
def test_one_that_never_yields_ends_with_2_and_a_sentence(
    kind: type[Noting], caplog: pytest.LogCaptureFixture
) -> None:
    if kind is Noting:

        class Command(Noting):
            @resource
            def client(self) -> Generator[int, None, None]:
                if self.opened:
                    yield 1
    else:

        class Command(AsyncNoting):  # type: ignore[no-redef]
            @resource
            async def client(self) -> AsyncGenerator[int, None]:
                if self.opened:
                    yield 1

    with pytest.raises(CommandError, match=r"client\(\) did not yield") as refused:
        run(Command())
    assert refused.value.returncode == Exit.USAGE
    assert not [each for each in caplog.records if each.exc_info and each.levelno > logging.INFO]
