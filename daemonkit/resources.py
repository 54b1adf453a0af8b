"""``@resource``: what a daemon keeps open across ticks, and opens anew after one that failed."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar, overload

from django.core.management.base import CommandError

from daemonkit.connections.units import fresh_connections
from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.listeners.log import logger
from daemonkit.process.stopping import current_tick
from daemonkit.skipping import Skipped

Value = TypeVar("Value")


class Host(Protocol):
    """The life that keeps resources open."""

    home: int | None

    @property
    def daemon(self) -> Any: ...
    @property
    def coroutines(self) -> Any: ...
    def give_up(self, code: Exit, what: str) -> None: ...


class Resource(Generic[Value]):
    """A method under ``@resource``. Reading it gives what the method has yielded."""

    def __init__(self, method: Callable[[Any], Any]) -> None:
        self.method = method
        self.is_async = inspect.isasyncgenfunction(method)
        self.name = getattr(method, "__name__", "")
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name
        owner.resources_of = Resources  # the life asks for it, so a plain loop loads none of this

    @overload
    def __get__(self, daemon: None, owner: type[Any]) -> Resource[Value]: ...
    @overload
    def __get__(self, daemon: object, owner: type[Any]) -> Value: ...
    def __get__(self, daemon: Any, owner: type[Any]) -> Any:
        return self if daemon is None else daemon.life.resources.value(self)


@overload
def resource(method: Callable[[Any], Generator[Value, Any, Any]]) -> Resource[Value]: ...
@overload
def resource(method: Callable[[Any], AsyncGenerator[Value, Any]]) -> Resource[Value]: ...
def resource(method: Callable[[Any], Any]) -> Resource[Any]:
    """Make a generator method with one ``yield`` something that the daemon keeps open.

    It is opened when it is first used, an async one before an async tick. It is closed after a tick
    that failed, and opened anew for the next, and closed at the end. Each job has its own. Raises
    ``TypeError`` for a method that does not yield.
    """
    if not inspect.isgeneratorfunction(method) and not inspect.isasyncgenfunction(method):
        name = getattr(method, "__name__", repr(method))
        raise TypeError(f"@resource {name}() does not yield: open it, yield it once, close it")
    return Resource(method)


class Resources:
    """The resources of one life: a set for its ticks, or for each job."""

    def __init__(self, life: Host) -> None:
        self._life = life
        self._sets: dict[str, OpenSet] = {}
        self._lock = threading.Lock()
        members: dict[str, Any] = {}
        for each in reversed(type(life.daemon).__mro__):
            members.update(vars(each))
        resources = [each for each in members.values() if isinstance(each, Resource)]
        self._async = [each for each in resources if each.is_async]

    def value(self, resource: Resource[Any]) -> Any:
        return self._current_set().value(resource)

    def _current_set(self) -> OpenSet:
        tick = current_tick.get()
        with self._lock:
            return self._sets.setdefault(tick.name if tick else "", OpenSet(self._life))

    def around(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """A tick, or the work of a job, with what its resources need before and after it."""
        is_async = inspect.iscoroutinefunction(work)

        def with_resources() -> Any:
            opened, tick = self._current_set(), current_tick.get()
            if tick is not None:
                tick.at_end = (opened.after_work, *tick.at_end)
            opened.raise_what_ended()
            for each in self._async if is_async else ():
                opened.value(each)
            return work()

        return with_resources

    def close(self) -> None:
        """Close all, at the end of the life. Raises ``CommandError`` for one that yields twice."""
        misused = [text for each in self._sets.values() if (text := each.close())]
        if misused:
            raise CommandError(f"{self._life.daemon.name}{misused[0]}", returncode=Exit.USAGE)


class OpenSet:
    """What is open for the ticks of a daemon, or for the runs of one job."""

    def __init__(self, life: Host) -> None:
        self._life = life
        self._opened: dict[str, Opened | AsyncOpened] = {}
        self._lock = threading.RLock()

    def value(self, resource: Resource[Any]) -> Any:
        with self._lock:
            if resource.name not in self._opened:
                self._open(resource)
            return self._opened[resource.name].value

    def _open(self, resource: Resource[Any]) -> None:
        life, generator = self._life, resource.method(self._life.daemon)
        made = AsyncOpened(generator) if resource.is_async else Opened(generator)
        if isinstance(made, AsyncOpened):
            life.coroutines.refuse_in_a_coroutine(
                f"self.{resource.name}", "an async tick() or job, which has it opened before"
            )
        try:
            life.coroutines.awaited(made.open())
        except NoYield:
            misused = f"'s @resource {resource.name}() did not yield: it must yield once, always"
            life.give_up(Exit.USAGE, misused.lstrip())
            raise CommandError(f"{life.daemon.name}{misused}", returncode=Exit.USAGE) from None
        self._opened[resource.name] = made

    def raise_what_ended(self) -> None:
        """Fail the tick if a task inside an async resource has ended it."""
        for each in self._opened.values():
            each.raise_if_ended()

    def after_work(self, error: BaseException | None) -> BaseException | None:
        """After a tick that failed, close everything. Returns its error."""
        failed = error is not None and not isinstance(error, Skipped)
        if (failed or self._life.home is None) and (misused := self.close()):
            self._life.give_up(Exit.USAGE, misused.lstrip())
        return error

    def close(self) -> str:
        """Close everything, the last one first; what fails is logged. Returns what is wrong with a
        resource that yields twice, or ""."""
        misused = ""
        with self._lock, fresh_connections:
            while self._opened:
                name, opened = self._opened.popitem()
                try:
                    if self._life.coroutines.awaited(opened.close()):
                        misused = f"'s @resource {name}() yields twice: it must yield once"
                except (Exception, asyncio.CancelledError) as error:
                    logger.warning("%s: closing the resource %s failed: %s",
                                   self._life.daemon.name, name, one_line(error))  # fmt: skip
        return misused


class NoYield(Exception):
    """A generator has ended before it has yielded."""


class Opened:
    """A resource that is open."""

    value: Any = None

    def __init__(self, generator: Generator[Any, Any, Any]) -> None:
        self._generator = generator

    def open(self) -> None:
        try:
            self.value = next(self._generator)
        except StopIteration:
            raise NoYield from None

    def raise_if_ended(self) -> None:
        """A generator ends only when it is closed."""

    def close(self) -> bool:
        """Returns whether it has yielded once more."""
        try:
            next(self._generator)
        except StopIteration:
            return False
        self._generator.close()
        return True


class AsyncOpened:
    """An async resource that is open, in a task of its own on the event loop."""

    value: Any = None

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generator = generator

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._leave, opened = asyncio.Event(), loop.create_future()
        self._task = loop.create_task(self._hold(opened))
        try:
            self.value = await opened
        except BaseException:
            self._task.cancel()
            raise

    async def _hold(self, opened: asyncio.Future[Any]) -> bool:
        """Open it, wait, and close it: in one task, as a ``TaskGroup`` requires."""
        try:
            opened.set_result(await anext(self._generator))
        except BaseException as error:
            no_yield = isinstance(error, StopAsyncIteration)
            if not opened.done():
                opened.set_exception(NoYield() if no_yield else error)
            return False
        try:
            await self._leave.wait()
        except BaseException as error:
            with contextlib.suppress(StopAsyncIteration):
                await self._generator.athrow(error)
            raise
        try:
            await anext(self._generator)
        except StopAsyncIteration:
            return False
        await self._generator.aclose()
        return True

    def raise_if_ended(self) -> None:
        if self._task.done():
            self._task.result()

    async def close(self) -> bool:
        self._leave.set()
        return await self._task
