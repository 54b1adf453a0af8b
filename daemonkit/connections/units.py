"""Each unit of work starts and ends with healthy database connections.

Django ensures this only around web requests, with ``close_old_connections()``.
``fresh_connections`` does the same anywhere. It may be nested, and used inside a transaction.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from django.db import connections
from django.dispatch import Signal

from daemonkit.connections.blocks import Block, leave
from daemonkit.connections.thread import this_thread

Work = TypeVar("Work", bound=Callable[..., Any])


class FreshConnections(Block):
    """A unit of work with healthy connections: a ``with`` block, a decorated function or class.

    Before and after a thread's outermost unit of work, connections are closed by Django's own
    rules. A connection that is kept is validated before its first query, whatever
    CONN_HEALTH_CHECKS says. It is dropped if the unit ended in a ``django.db.Error`` or left a
    transaction open. If a transaction was open before the unit began, the connection belongs to the
    caller and is never touched. No work is ever run a second time.
    """

    async def __aenter__(self) -> None:
        from daemonkit.connections.coroutines import enter_coroutine  # many have no coroutine

        await enter_coroutine()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        from daemonkit.connections.coroutines import leave_coroutine

        await leave_coroutine(error)

    def __call__(self, work: Work) -> Work:
        """Make each call of a function, of a coroutine function, or of a public method that a class
        itself defines a unit of work. Raises ``TypeError`` for anything else: a generator, a
        property, an instance, a class without public methods."""
        if isinstance(work, type):
            return cast(Work, _decorate_methods(work, self))
        if isinstance(work, (staticmethod, classmethod)):
            return cast(Work, type(work)(self(work.__func__)))
        return cast(Work, _decorate_function(work, self))

    def between(self, started: Signal, finished: Signal) -> Callable[[], None]:
        """Make the time between two Django signals a unit of work, on each thread, as Django does
        with ``request_started`` and ``request_finished``.

        A second ``started`` on a thread ends the first unit of work. A ``finished`` without a
        ``started`` is ignored. Returns a function that disconnects the signals. Raises
        ``TypeError`` for an argument that is not a signal.
        """
        for signal in (started, finished):
            if not isinstance(signal, Signal):
                raise TypeError(
                    f"fresh_connections.between() takes two django.dispatch.Signal, not {signal!r}"
                )
        return _Between(started, finished).bind()


fresh_connections = FreshConnections()


def is_in_callers_transaction() -> bool:
    """Whether this thread is inside ``atomic()``, as in Django's TestCase."""
    return any(wrapper.in_atomic_block for wrapper in connections.all(initialized_only=True))


class _Between:
    """The receivers of a pair of signals.

    At ``started`` each thread stores the number of blocks around it, and ``finished`` restores that
    depth. So after an interruption between the two, the next signal of either kind cleans up.
    """

    def __init__(self, started: Signal, finished: Signal) -> None:
        self.started, self.finished = started, finished
        self._here = threading.local()

    def bind(self) -> Callable[[], None]:
        self.started.connect(self._on_started, weak=False)
        self.finished.connect(self._on_finished, weak=False)
        return self._unbind

    def _unbind(self) -> None:
        self.started.disconnect(self._on_started)
        self.finished.disconnect(self._on_finished)

    def _on_started(self, **_: Any) -> None:
        self._on_finished()
        self._here.depth = this_thread().depth
        fresh_connections.__enter__()

    def _on_finished(self, **_: Any) -> None:
        depth = getattr(self._here, "depth", None)
        if depth is not None:
            leave(this_thread(), depth, None)
            self._here.depth = None


def _decorate_methods(handler: type[Any], fresh: FreshConnections) -> Any:
    methods: dict[str, Any] = {
        name: member
        for name, member in vars(handler).items()
        if not name.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, (staticmethod, classmethod)))
    }
    if not methods:
        raise TypeError(
            f"{handler.__qualname__} defines no public method that fresh_connections could make a "
            f"unit of work; decorate the class that defines them"
        )
    for name, member in methods.items():
        setattr(handler, name, fresh(member))
    return handler


def _decorate_function(work: Any, fresh: FreshConnections) -> Any:
    if isinstance(work, property):
        raise TypeError("fresh_connections cannot decorate a property; decorate its function")
    if not (inspect.isroutine(work) or isinstance(work, functools.partial)):
        raise TypeError(
            f"fresh_connections decorates functions and classes, not an instance such as {work!r}"
        )
    if inspect.isgeneratorfunction(work) or inspect.isasyncgenfunction(work):
        raise TypeError(
            f"fresh_connections cannot decorate the generator {_name(work)}(): "
            f"it returns before it works; use `with fresh_connections:` around the loop over it"
        )

    @functools.wraps(work)
    def call(*args: Any, **kwargs: Any) -> Any:
        with fresh:
            return work(*args, **kwargs)

    @functools.wraps(work)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        from daemonkit.connections.coroutines import CoroutineUnit

        async with CoroutineUnit():
            return await work(*args, **kwargs)

    return call_async if inspect.iscoroutinefunction(work) else call


def _name(work: Any) -> str:
    return str(getattr(work, "__qualname__", work))
