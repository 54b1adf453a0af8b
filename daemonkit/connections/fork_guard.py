"""The fork guard: what a child does with the database connections of its parent.

A forked child inherits its parent's sockets. Whatever it sends on them, even the quit message of a
driver's destructor, ends or corrupts the parent's sessions. So the child replaces each of these
sockets, whichever thread opened it, by a dead one, and opens its own sessions when it needs them.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket
import stat
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from daemonkit.connections.link import forget
from daemonkit.connections.sockets import descriptor_of
from daemonkit.connections.wrappers import Wrapper, is_in_memory
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
_kept: list[_OpenConnections] = []
_unusable_files: set[str] = set()
_here = threading.local()


def _on_connection_created(connection: Wrapper, **_: Any) -> None:
    if _unusable_files and connection.vendor == "sqlite":
        _refuse_unusable_file(connection)
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
    signal_handlers.before_fork()
    _here.open = held = _all_open()
    if held.raws or held.pools:
        import ctypes  # noqa: F401  here, as another thread may hold the import lock in the child


def _after_fork_in_parent() -> None:
    _here.open = None
    signal_handlers.after_fork()


def _after_fork_in_child() -> None:
    with contextlib.ExitStack() as steps:
        # A thread that does not exist in the child may have held the lock.
        connection_created.lock = threading.Lock()
        steps.callback(signal_handlers.after_fork)  # the last of the steps
        steps.callback(signal_handlers.after_fork_in_child)
        held = _all_open()  # again: other threads may have opened more since _before_fork()
        if held.raws or held.pools:
            steps.callback(_prevent_destructors, held)
            for wrapper in held.wrappers:
                steps.callback(_reset_wrapper, wrapper)
            steps.callback(_forget_pools, held)
            steps.callback(_cover_sockets, held)  # the first


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


# The steps of the child


def _cover_sockets(held: _OpenConnections) -> None:
    """Replace each socket by a dead one: a read finds the end of the stream, a write fails.

    Closing the descriptors would not be safe: drivers would go on using their numbers, which the
    kernel would give to other files.
    """
    noted = {id(opened()): (opened.descriptor, opened.inode) for opened in list(_opened)}
    _opened.clear()
    sockets = [_socket_of(raw, noted.get(id(raw), (None, 0))) for raw in held.raws]
    dead, peer = socket.socketpair()
    peer.close()
    with dead:
        for descriptor, inode in sockets:
            if descriptor is not None and _is_socket(descriptor, inode):
                os.dup2(dead.fileno(), descriptor, inheritable=False)


def _socket_of(raw: Any, noted: tuple[int | None, int]) -> tuple[int | None, int]:
    """A connection's socket, asked again because some drivers reconnect silently. mysqlclient does
    not answer while another thread runs a query; then the ``noted`` socket is still in use."""
    descriptor, inode = descriptor_of(raw)
    return noted if descriptor is None else (descriptor, inode)


def _is_socket(descriptor: int, inode: int) -> bool:
    """Whether the descriptor still refers to this socket, and was not closed and reused."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return found.st_ino == inode and stat.S_ISSOCK(found.st_mode)


def _reset_wrapper(wrapper: Wrapper) -> None:
    """Reset a wrapper, so that it opens the child's own connection when it is next used.

    The child takes part in no transaction of its parent, even if it was forked inside ``atomic()``.
    """
    if wrapper.connection is None and not wrapper.in_atomic_block:
        return
    if wrapper.vendor == "sqlite":
        if is_in_memory(wrapper):  # the child has its own copy
            return
        _detach_sqlite(wrapper)
    if wrapper.in_atomic_block:
        wrapper.set_autocommit = functools.partial(_set_autocommit, wrapper)
    forget(wrapper)
    # There is nothing left to close, but an engine that overrides close() resets state of its own
    # there, such as the schema that it has set. A wrapper of another thread refuses.
    with contextlib.suppress(Exception):
        wrapper.close()


def _set_autocommit(wrapper: Wrapper, autocommit: bool, *arguments: Any, **named: Any) -> None:
    """Django's ``set_autocommit()``, which does not connect only to turn autocommit on.
    ``atomic()`` calls it last, also when a child leaves its parent's block."""
    if wrapper.connection is not None or wrapper.in_atomic_block or not autocommit:
        type(wrapper).set_autocommit(wrapper, autocommit, *arguments, **named)


def _forget_pools(held: _OpenConnections) -> None:
    """Forget psycopg's pools; Django makes new ones. A pool that is marked as closed does not try
    to stop its threads, which do not exist in the child."""
    _pools().clear()
    for pool in held.pools:
        pool._closed = True


def _prevent_destructors(held: _OpenConnections) -> None:
    """Prevent all destructors, even when the interpreter ends: a driver may have been in the middle
    of a call on another thread, and SQLite would roll back the parent's transaction."""
    _here.open = None
    keep = _OpenConnections([], held.raws, held.pools)
    _kept.append(keep)
    if ctypes := sys.modules.get("ctypes"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(keep))


# SQLite has no server: its library counts the locks of the process in the process's memory. A child
# inherits the count without the locks. Its reads are then unprotected, and with a WAL its writes
# are lost when its parent closes the file. Closing the inherited connection corrects the count, but
# it would roll back a transaction that the parent has open.


def _detach_sqlite(wrapper: Wrapper) -> None:
    raw, name = wrapper.connection, str(wrapper.settings_dict["NAME"])
    is_ours = wrapper._thread_ident == threading.get_ident()
    if is_ours and not raw.in_transaction:
        for cursor in gc.get_referrers(raw):
            if issubclass(
                type(cursor), wrapper.Database.Cursor
            ):  # an open one would keep the file open
                cursor.close()
        raw.close()
    elif raw.in_transaction or Path(f"{name}-shm").exists():
        _unusable_files.add(name)


def _refuse_unusable_file(wrapper: Wrapper) -> None:
    name = str(wrapper.settings_dict["NAME"])
    if name in _unusable_files:
        wrapper.connection, raw = None, wrapper.connection
        raw.close()
        raise OperationalError(
            f"this process was forked while its parent was busy in the SQLite database {name}, "
            f"which SQLite does not support: fork outside of atomic() and before other threads "
            f"use it, or start the process with multiprocessing's 'spawn'"
        )
