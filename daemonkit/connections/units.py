"""Connection hygiene: each unit of work starts and ends with healthy database connections.

Django does this around web requests, with ``close_old_connections``, and nowhere else.
``fresh_connections`` is the same, made safe to nest and to use inside a caller's transaction.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.transaction import TransactionManagementError
from django.dispatch import Signal

from daemonkit.connections.thread import ThreadConnections, close, here, this_thread

Work = TypeVar("Work", bound=Callable[..., Any])


class FreshConnections:
    """A unit of work: a ``with`` block, a decorated function or class, with healthy connections.

    Before and after the outermost one of a thread, each connection is cleaned by Django's own
    rules. One that is kept is validated before its first query, whatever CONN_HEALTH_CHECKS says.
    One that the unit left in doubt (it ended in a ``django.db.Error``, or left a transaction open)
    is dropped. A connection whose transaction was opened outside is the caller's, and is never
    touched. Nothing is ever run a second time.
    """

    def __enter__(self) -> None:
        thread = here.thread or this_thread()
        thread.depth += 1
        if thread.depth == 1 or (thread.coroutines and _is_apart(thread, 1)):
            thread.begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        thread = here.thread or this_thread()
        thread.depth -= 1
        if thread.depth == 0 or (thread.coroutines and _is_apart(thread, 0)):
            thread.end(error)

    async def __aenter__(self) -> None:
        _coroutine_depth.set(_coroutine_depth.get() + 1)
        await sync_to_async(_enter_overlapping)()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        _coroutine_depth.set(_coroutine_depth.get() - 1)
        await sync_to_async(_leave_overlapping)(error)

    def __call__(self, work: Work) -> Work:
        """Make every call of a function or a coroutine function a unit of work, or every call of a
        public method that a class itself defines.

        Raises ``TypeError``, with the mend, for what cannot be one: a generator, a property, an
        instance, a class without public methods.
        """
        if isinstance(work, type):
            return cast(Work, _decorate_methods(work, self))
        if isinstance(work, (staticmethod, classmethod)):
            return cast(Work, type(work)(self(work.__func__)))
        return cast(Work, _decorate_function(work, self))

    def between(self, started: Signal, finished: Signal) -> Callable[[], None]:
        """Make a unit of work of the time between two Django signals, on each thread, as Django
        does it between ``request_started`` and ``request_finished``.

        A second ``started`` on a thread ends the first unit of work; a ``finished`` without one is
        nothing. Returns a function that undoes it. Raises ``TypeError`` for what is no signal.
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


def release_connections() -> None:
    """Give this thread's connections back in the middle of a long unit of work.

    For before an hour of work without the database; the next query opens a new one. A caller's
    transaction is left alone. Raises ``TransactionManagementError`` inside an ``atomic()`` of the
    unit of work itself, which would lose its rows.
    """
    thread = this_thread()
    for link in thread.links:
        own, wrapper = thread.depth and not link.callers, link.wrapper()
        if own and wrapper is not None and wrapper.in_atomic_block:
            raise TransactionManagementError(
                f"release_connections() inside atomic() would lose the transaction on "
                f"{wrapper.alias!r}; call it outside of the block"
            )
    for link in thread.links:
        wrapper = link.wrapper()
        if wrapper is not None and not link.is_in_transaction(wrapper):
            close(link)


@contextlib.contextmanager
def kept_between_units() -> Iterator[None]:
    """Let units of work that follow each other at once share a connection at CONN_MAX_AGE=0.

    For loops: whoever enters this calls ``close_idle`` before each wait.
    """
    thread = this_thread()
    outer, thread.keeps = thread.keeps, True
    try:
        yield
    finally:
        thread.keeps = outer
        close_idle(0)


def close_idle(seconds: float) -> None:
    """Before a wait of so many seconds: close what Django would close before it is over.

    It would only sit in the server's ``max_connections``.
    """
    until = time.monotonic() + seconds
    for link in this_thread().links:
        wrapper = link.wrapper()
        if wrapper is None or wrapper.connection is None or link.is_in_transaction(wrapper):
            continue
        max_age = wrapper.settings_dict["CONN_MAX_AGE"]
        if max_age == 0 or (wrapper.close_at is not None and wrapper.close_at <= until):
            close(link)


def until_next_close() -> float | None:
    """Seconds until ``close_idle(0)`` has something to close in this thread; None if never."""
    times = [
        wrapper.close_at
        for link in this_thread().links
        if (wrapper := link.wrapper()) is not None
        and wrapper.connection is not None
        and wrapper.close_at is not None
    ]
    return max(0.0, min(times) - time.monotonic()) if times else None


def close_all() -> None:
    """Close all that this thread has opened, because it is about to end: what a thread leaves open
    stays on the server until the garbage collector comes by."""
    for link in this_thread().links:
        close(link)


def drop_all() -> None:
    """Drop hard all that this thread has opened, without a word about it: for a unit of work that
    failed, and whose owner says so in its own way."""
    thread = this_thread()
    thread.adopt()
    for link in thread.links:
        link.drop()


class _Between:
    """The receivers of one pair of signals, and the threads that are between the two."""

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
        self._here.open = True
        fresh_connections.__enter__()

    def _on_finished(self, **_: Any) -> None:
        if getattr(self._here, "open", False):
            self._here.open = False
            fresh_connections.__exit__(None, None, None)


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
        async with fresh:
            return await work(*args, **kwargs)

    return call_async if inspect.iscoroutinefunction(work) else call


def _name(work: Any) -> str:
    return str(getattr(work, "__qualname__", work))


_coroutine_depth: ContextVar[int] = ContextVar("coroutine_depth", default=0)
"""In how many coroutines' units of work the code at hand is."""


def _is_apart(thread: ThreadConnections, depth: int) -> bool:
    """Whether a unit of work at this depth stands beside those of coroutines, such as a tick beside
    a task that is in the middle of one: then it is an outermost one. One that a coroutine
    has begun inside its own is not."""
    return thread.depth - thread.coroutines == depth and not _coroutine_depth.get()


def _enter_overlapping() -> None:
    """A coroutine begins; this is the thread on which Django does its queries.

    Coroutines overlap there, so only the first begins a unit of work. A later one has the
    connections validated once more: under a steady load the last one may never end.
    """
    thread = this_thread()
    if thread.depth:
        thread.distrust()
    thread.depth += 1
    thread.coroutines += 1
    if thread.depth == 1:
        thread.begin()


def _leave_overlapping(error: BaseException | None) -> None:
    """A coroutine ends. While others go on, a connection may be in the middle of their work: then
    it is only validated before its next query, and an error is kept for the last one."""
    thread = this_thread()
    thread.depth -= 1
    thread.coroutines -= 1
    if thread.depth and error is not None:
        thread.distrust()
    if thread.coroutines:
        thread.overlapped = thread.overlapped or error
        return
    error, thread.overlapped = thread.overlapped or error, None
    if not thread.depth:
        thread.end(error)
