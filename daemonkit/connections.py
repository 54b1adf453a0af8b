"""Connection hygiene: each unit of work starts and ends with healthy database connections.

Django does this around web requests, with ``close_old_connections``, and nowhere else.
``fresh_connections`` is the same, made safe to nest and to use inside a caller's transaction.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from django.core.cache import caches, close_caches
from django.db import Error, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.transaction import TransactionManagementError

from daemonkit.errors import chain
from daemonkit.links import Link, Wrapper

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class FreshConnections:
    """A unit of work: a ``with`` block or a decorated function, with healthy connections.

    Before and after the outermost one of a thread, each connection is cleaned by Django's own
    rules. One that is kept is validated before its first query, whatever CONN_HEALTH_CHECKS says.
    One that the unit left in doubt (it ended in a ``django.db.Error``, or left a transaction open)
    is dropped. A connection whose transaction was opened outside is the caller's, and is never
    touched. Nothing is ever run a second time.
    """

    def __enter__(self) -> None:
        thread = _this_thread()
        thread.depth += 1
        if thread.depth == 1:
            thread.begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        thread = _this_thread()
        thread.depth -= 1
        if thread.depth == 0:
            thread.end(error)

    def __call__(self, work: Callable[P, R]) -> Callable[P, R]:
        """Make every call of a function a unit of work. Raises ``TypeError`` for a generator."""
        if inspect.isgeneratorfunction(work) or inspect.isasyncgenfunction(work):
            raise TypeError(
                f"fresh_connections cannot decorate the generator {work.__qualname__}(): "
                f"it returns before it works; use `with fresh_connections:` around the loop over it"
            )

        @functools.wraps(work)
        def fresh(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return work(*args, **kwargs)

        return fresh


fresh_connections = FreshConnections()


def release_connections() -> None:
    """Give this thread's connections back in the middle of a long unit of work.

    For before an hour of work without the database; the next query opens a new one. A caller's
    transaction is left alone. Raises ``TransactionManagementError`` inside an ``atomic()`` of the
    unit of work itself, which would lose its rows.
    """
    thread = _this_thread()
    for link in thread.links:
        own = thread.depth and not link.callers
        if own and link.wrapper is not None and link.wrapper.in_atomic_block:
            raise TransactionManagementError(
                f"release_connections() inside atomic() would lose the transaction on "
                f"{link.wrapper.alias!r}; call it outside of the block"
            )
    for link in thread.links:
        if link.wrapper is not None and not _is_in_transaction(link.wrapper):
            _close(link)


@contextlib.contextmanager
def kept_between_units() -> Iterator[None]:
    """Let units of work that follow each other at once share a connection at CONN_MAX_AGE=0.

    For loops: whoever enters this calls ``close_idle`` before each wait.
    """
    thread = _this_thread()
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
    for link in _this_thread().links:
        wrapper = link.wrapper
        if wrapper is None or wrapper.connection is None or _is_in_transaction(wrapper):
            continue
        max_age = wrapper.settings_dict["CONN_MAX_AGE"]
        if max_age == 0 or (wrapper.close_at is not None and wrapper.close_at <= until):
            _close(link)


def cut_connections(threads: set[int], *, for_good: bool) -> None:
    """Cut the database sessions of these threads (``threading.get_ident()``) from outside.

    ``for_good``: until the process ends these threads send no statement and connect no more. A
    statement or COMMIT that is on the wire has an unknown outcome.
    """
    if for_good:
        _refused.update(threads)
        setattr(BaseDatabaseWrapper, "connect", _refusing_connect)  # noqa: B010  mypy refuses it plain
    for ident in threads:
        thread = _threads.get(ident)
        if thread is None:
            continue
        for link in list(thread.links):
            link.refuse() if for_good else link.cut()


def install() -> None:
    """Hear of every connection that is made. Called by ``AppConfig.ready()``; twice is once."""
    connection_created.connect(_on_connection_created, dispatch_uid="daemonkit.connections")


class _Thread:
    """One thread's links, and how deep it is in units of work."""

    def __init__(self) -> None:
        self.depth = 0
        self.keeps = False
        self.links: list[Link] = []

    def begin(self) -> None:
        """Before the outermost unit of work: clean by Django's rules, and distrust what is kept."""
        for link in self.links:
            wrapper = link.wrapper
            if wrapper is None:
                continue
            link.callers = _is_in_transaction(wrapper)
            if link.callers or wrapper.connection is None:
                continue
            if wrapper.queries_log and not wrapper.force_debug_cursor:
                wrapper.queries_log.clear()
            self._clean(link, wrapper)
            wrapper.health_check_enabled = True

    def end(self, error: BaseException | None) -> None:
        """After the outermost unit of work: drop what is in doubt, keep the rest as Django says."""
        if error is not None:
            self.adopt()  # a connection that broke while it was being made announced itself nowhere
        for link in self.links:
            wrapper = link.wrapper
            if wrapper is None or link.callers:
                continue
            why = _doubt(link, wrapper, error)
            if why is not None:
                link.drop()
                logger.warning("connection %r dropped: the unit of work %s", wrapper.alias, why)
            elif wrapper.connection is not None:
                self._clean(link, wrapper)
                wrapper.health_check_enabled = wrapper.settings_dict["CONN_HEALTH_CHECKS"]
        if _has_caches():
            close_caches()

    def validates(self) -> bool:
        """Whether a unit of work is under way: outside of one, Django's own rules hold."""
        return self.depth > 0

    def adopt(self) -> None:
        """Link every open connection of this thread that has no link yet."""
        for wrapper in connections.all(initialized_only=True):
            if wrapper.connection is not None:
                self.connected(wrapper, known=False)

    def connected(self, wrapper: Wrapper, *, known: bool = True) -> None:
        """Link a connection that was just made, or, if not ``known``, one that has no link."""
        if wrapper._thread_ident != threading.get_ident():
            return  # lent by another thread, which cleans it
        for link in self.links:
            if link.wrapper is wrapper:
                if known:
                    link.connected()
                return
        self.links = [link for link in self.links if link.wrapper is not None]
        self.links.append(Link(wrapper, self.validates))

    def _clean(self, link: Link, wrapper: Wrapper) -> None:
        """Django's ``close_if_unusable_or_obsolete``, which may itself raise on a dead handle."""
        if self.keeps and wrapper.settings_dict["CONN_MAX_AGE"] == 0:
            wrapper.close_at = None
        try:
            wrapper.close_if_unusable_or_obsolete()
            if link.is_pooled() and not link.answered_lately():
                wrapper.close()  # the pool validates a connection when it hands it out, not Django
        except Exception:
            link.drop()


class _Local(threading.local):
    thread: _Thread | None = None


_local = _Local()
_threads: weakref.WeakValueDictionary[int, _Thread] = weakref.WeakValueDictionary()
_refused: set[int] = set()


def _this_thread() -> _Thread:
    thread = _local.thread
    if thread is None:
        install()
        thread = _local.thread = _threads[threading.get_ident()] = _Thread()
        thread.adopt()
    return thread


def _has_caches() -> bool:
    """Whether any cache can have been opened: Django imports a backend when it is first used.

    ``close_caches()`` alone would cost as much as all the rest of an empty unit of work.
    """
    return any(
        cache["BACKEND"].rpartition(".")[0] in sys.modules for cache in caches.settings.values()
    )


def _is_in_transaction(wrapper: Wrapper) -> bool:
    return wrapper.in_atomic_block or (
        wrapper.connection is not None and wrapper.autocommit != wrapper.settings_dict["AUTOCOMMIT"]
    )


def _doubt(link: Link, wrapper: Wrapper, error: BaseException | None) -> str | None:
    """Why a connection cannot be kept after a unit of work, or None if it can."""
    if error is not None and wrapper.connection is not None and link.was_used():
        if not isinstance(error, Exception):
            return f"was interrupted by {type(error).__name__}"
        kinds = (Error, wrapper.Database.Error)  # some errors reach us in the driver's own class
        if any(isinstance(behind, kinds) for behind in chain(error)):
            return f"ended in {type(error).__name__}: {error}"
    try:
        return link.left_open()
    except Exception as trouble:
        return f"left it in an unknown state ({type(trouble).__name__})"


def _close(link: Link) -> None:
    wrapper = link.wrapper
    try:
        if wrapper is not None:
            wrapper.close()
    except Exception:
        link.drop()


def _on_connection_created(connection: Wrapper, **_: Any) -> None:
    if threading.get_ident() in _refused:
        connection.connection, raw = None, connection.connection
        raw.close()
        _refusing_connect(connection)
    thread = _this_thread()
    thread.connected(connection)
    if thread.depth and getattr(connection.connection, "_pool", None) is not None:
        _replace_the_stale(connection, thread)


def _replace_the_stale(wrapper: Wrapper, thread: _Thread) -> None:
    """Exchange what psycopg's pool has lent until it is alive.

    Django has the pool test what it hands out only where CONN_HEALTH_CHECKS is on; and then the
    pool pauses for seconds between two tries, and its test cannot be cut.
    """
    pool = wrapper.connection._pool
    if (check := getattr(pool, "_check", None)) is type(pool).check_connection:
        pool._check = lambda raw: None if _this_thread().depth else check(raw)
    for _ in range(pool.max_size + 1):
        if type(wrapper).is_usable(wrapper):
            return
        wrapper.connection.close()
        pool.putconn(wrapper.connection)
        wrapper.connection = None
        wrapper.connection = wrapper.get_new_connection(wrapper.get_connection_params())
        wrapper.set_autocommit(wrapper.settings_dict["AUTOCOMMIT"])
        thread.connected(wrapper)


_connect = BaseDatabaseWrapper.connect


def _refusing_connect(wrapper: Wrapper) -> None:
    if threading.get_ident() in _refused:
        raise OperationalError("daemonkit makes no new connection: the process is being stopped")
    _connect(wrapper)
