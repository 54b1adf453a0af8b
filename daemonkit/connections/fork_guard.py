"""The fork guard: what a child does with the database connections of its parent.

A forked child inherits its parent's sockets. Whatever it sends on them, even the quit message of a
driver's destructor, ends or corrupts the parent's sessions. So the child replaces each of these
sockets, whichever thread opened it, by a dead one, and opens its own sessions when it needs them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from daemonkit.connections.sockets import descriptor_of
from daemonkit.connections.wrappers import Wrapper
from daemonkit.process import signal_handlers


def guard(raw: Any) -> None:
    """Guard a connection that was opened by a driver, without Django, in forked children.

    Django's own connections need no call. ``raw`` is held by a weak reference.
    """
    try:
        opened = _Opened(raw, _opened.discard)
        if opened in _opened:  # a pool has lent it again
            return
        opened.descriptor, opened.inode = descriptor_of(raw)
        _opened.add(opened)
    except TypeError:  # sqlite3 allows no weak reference; the one to its wrapper is enough
        return
    if opened.descriptor is not None:
        with contextlib.suppress(OSError):  # libmariadb leaves it open in executed programs
            os.set_inheritable(opened.descriptor, False)


def install() -> None:
    """Guard every fork of this process. ``AppConfig.ready()`` calls it; it may be called again."""
    global _installed
    connection_created.connect(_on_connection_created, dispatch_uid="daemonkit.fork_guard")
    if _installed:
        return
    _installed = True
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
    if threading.active_count() > 1:  # other threads may have opened connections before
        for thing in gc.get_objects():
            if issubclass(type(thing), BaseDatabaseWrapper) and hasattr(thing, "connection"):
                _register(thing)


class _Opened(weakref.ref[Any]):
    """A driver's connection that was opened in this process, and its socket at that time."""

    __slots__ = ("descriptor", "inode")
    descriptor: int | None
    inode: int


class _OpenConnections(NamedTuple):
    """Strong references to everything that a child inherits."""

    wrappers: list[Wrapper]
    raws: list[Any]
    pools: list[Any]


_installed = False
_opened: set[_Opened] = set()
_wrappers: set[weakref.ref[Wrapper]] = set()
_here = threading.local()


def _on_connection_created(connection: Wrapper, **_: Any) -> None:
    _register(connection)


def _register(wrapper: Wrapper) -> None:
    _wrappers.add(weakref.ref(wrapper, _wrappers.discard))
    if wrapper.connection is not None:
        guard(wrapper.connection)


# The three hooks of a fork. They run in the thread that forks. Python prints what they raise and
# goes on, so each runs all of its steps even if one fails.


def _before_fork() -> None:
    """Keep references to all connections. Otherwise a child would destroy those of other threads
    before its first line of Python."""
    from daemonkit.connections import inherited  # noqa: F401  the child may not import

    signal_handlers.before_fork()
    _here.open = _all_open()


def _after_fork_in_parent() -> None:
    _release()
    signal_handlers.after_fork()


def _after_fork_in_child() -> None:
    with contextlib.ExitStack() as steps:
        # A thread that does not exist in the child may have held the lock.
        connection_created.lock = threading.Lock()
        steps.callback(signal_handlers.after_fork)  # the last of the steps
        steps.callback(signal_handlers.after_fork_in_child)
        steps.callback(_release)
        steps.callback(_disown, _all_open())  # again: other threads may have opened more meanwhile


def _disown(held: _OpenConnections) -> None:
    noted = {id(opened()): (opened.descriptor, opened.inode) for opened in list(_opened)}
    _opened.clear()
    if held.raws or held.pools:
        from daemonkit.connections.inherited import Inherited

        Inherited(held.wrappers, held.raws, _pools(), noted).disown()


def _release() -> None:
    _here.open = None


def _all_open() -> _OpenConnections:
    """Everything that is open in this process, whichever thread opened it.

    Other threads may open and close connections meanwhile. ``list()`` copies a set atomically.
    """
    wrappers = {id(wrapper): wrapper for wrapper in _alive(_wrappers)}
    for wrapper in connections.all(initialized_only=True):  # opened before we were installed
        wrappers[id(wrapper)] = wrapper
    pools = list(_pools().values())
    raws = {id(raw): raw for raw in _alive(_opened)}
    for wrapper in wrappers.values():
        if wrapper.connection is not None:
            raws[id(wrapper.connection)] = wrapper.connection
    for pool in pools:
        raws.update((id(raw), raw) for raw in list(pool._pool))
    return _OpenConnections(list(wrappers.values()), list(raws.values()), pools)


def _alive(references: set[Any]) -> Iterator[Any]:
    return (found for reference in list(references) if (found := reference()) is not None)


def _pools() -> dict[str, Any]:
    """The psycopg pools that Django has opened, by alias."""
    backend = sys.modules.get("django.db.backends.postgresql.base")
    wrapper = getattr(backend, "DatabaseWrapper", None)
    return getattr(wrapper, "_connection_pools", {})
