"""The fork guard: what a child does with the database connections of its parent.

A forked child holds its parent's sockets, and all that it sends on them, be it the good-bye of a
driver's destructor, ends or garbles the parent's sessions. So it puts a dead socket over each of
them, whichever thread opened it, and opens sessions of its own when it has something to ask.
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
    """Guard a driver's own connection, which Django does not know of, in forked children.

    Django's are guarded without a call. It is held weakly.
    """
    try:
        opened = _Opened(raw, _opened.discard)
        if opened in _opened:  # lent by a pool once more
            return
        opened.descriptor, opened.inode = descriptor_of(raw)
        _opened.add(opened)
    except TypeError:  # sqlite3 allows no weak reference; there the wrapper's must do
        return
    if opened.descriptor is not None:
        with contextlib.suppress(OSError):  # libmariadb would hand it on to what is executed
            os.set_inheritable(opened.descriptor, False)


def install() -> None:
    """Guard every fork of this process. Called by ``AppConfig.ready()``; twice is once."""
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
    if threading.active_count() > 1:  # they may have connections that we have not heard of
        for thing in gc.get_objects():
            if issubclass(type(thing), BaseDatabaseWrapper) and hasattr(thing, "connection"):
                _heard_of(thing)


class _Opened(weakref.ref[Any]):
    """A driver's connection that was opened in this process, and where its socket was then."""

    __slots__ = ("descriptor", "inode")
    descriptor: int | None
    inode: int


class _Held(NamedTuple):
    """All that a fork would hand to the child, by strong references."""

    wrappers: list[Wrapper]
    raws: list[Any]
    pools: list[Any]


_installed = False
_opened: set[_Opened] = set()
_wrappers: set[weakref.ref[Wrapper]] = set()
_kept: list[_Held] = []
_barred: set[str] = set()
_here = threading.local()


def _on_connection_created(connection: Wrapper, **_: Any) -> None:
    if _barred and connection.vendor == "sqlite":
        _refuse_a_barred_file(connection)
    _heard_of(connection)


def _heard_of(wrapper: Wrapper) -> None:
    _wrappers.add(weakref.ref(wrapper, _wrappers.discard))
    if wrapper.connection is not None:
        guard(wrapper.connection)


# The three moments of a fork. They run in the thread that forks. Python prints what they raise,
# and goes on; so each does all of its steps, whichever fails.


def _before_fork() -> None:
    """Hold what the child must not destroy before it has come to its senses: it loses the other
    threads, and what only they hold, before its first line of Python."""
    signal_handlers.hold_still()
    _here.held = held = _all_open()
    if held.raws or held.pools:
        import ctypes  # noqa: F401  not in the child: another thread may hold an import lock


def _after_fork_in_parent() -> None:
    _here.held = None
    signal_handlers.let_go()


def _after_fork_in_child() -> None:
    with contextlib.ExitStack() as steps:
        # Another thread may have held it, and would not give it back.
        connection_created.lock = threading.Lock()
        steps.callback(signal_handlers.let_go)  # the last of the steps
        steps.callback(signal_handlers.forget_in_child)
        held = _all_open()  # what was gathered before the fork, and what was opened meanwhile
        if held.raws or held.pools:
            steps.callback(_keep_for_ever, held)
            for wrapper in held.wrappers:
                steps.callback(_part, wrapper)
            steps.callback(_part_from_pools, held)
            steps.callback(_cover_sockets, held)  # the first


def _all_open() -> _Held:
    """What is open in this process, whichever thread opened it.

    A list of a set is made in one go: other threads may go on opening and closing.
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
    return _Held(list(wrappers.values()), list(raws.values()), pools)


def _alive(references: set[Any]) -> Iterator[Any]:
    return (found for reference in list(references) if (found := reference()) is not None)


def _pools() -> dict[str, Any]:
    """The pools of psycopg that Django has opened, by alias."""
    backend = sys.modules.get("django.db.backends.postgresql.base")
    wrapper = getattr(backend, "DatabaseWrapper", None)
    return getattr(wrapper, "_connection_pools", {})


# The steps of the child


def _cover_sockets(held: _Held) -> None:
    """Put a dead socket over each descriptor: it reads as ended, and takes nothing.

    To close them would not do: drivers would go on using the numbers, and the numbers would come
    to mean other files.
    """
    noted = {id(opened()): (opened.descriptor, opened.inode) for opened in list(_opened)}
    _opened.clear()
    sockets = [_where(raw, noted.get(id(raw), (None, 0))) for raw in held.raws]
    dead, peer = socket.socketpair()
    peer.close()
    with dead:
        for descriptor, inode in sockets:
            if descriptor is not None and _is_socket(descriptor, inode):
                os.dup2(dead.fileno(), descriptor, inheritable=False)


def _where(raw: Any, noted: tuple[int | None, int]) -> tuple[int | None, int]:
    """A connection's socket, asked now, as some drivers connect anew in silence. mysqlclient does
    not say while another thread has a query under way: then it is where it was."""
    descriptor, inode = descriptor_of(raw)
    return noted if descriptor is None else (descriptor, inode)


def _is_socket(descriptor: int, inode: int) -> bool:
    """Whether the descriptor still means that socket, and was not closed and given away since."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return found.st_ino == inode and stat.S_ISSOCK(found.st_mode)


def _part(wrapper: Wrapper) -> None:
    """Let a wrapper open a connection of the child's own when it is next used.

    The child is in none of its parent's transactions, even where it stands inside ``atomic()``.
    """
    if wrapper.connection is None and not wrapper.in_atomic_block:
        return
    if wrapper.vendor == "sqlite":
        if is_in_memory(wrapper):  # a copy, and the child's own
            return
        _part_from_sqlite(wrapper)
    if wrapper.in_atomic_block:
        wrapper.set_autocommit = functools.partial(_set_autocommit, wrapper)
    forget(wrapper)
    # There is nothing left to close, but an engine that overrides close() resets state of its own
    # there, such as the schema that it has set. A wrapper of another thread refuses.
    with contextlib.suppress(Exception):
        wrapper.close()


def _set_autocommit(wrapper: Wrapper, autocommit: bool, *arguments: Any, **named: Any) -> None:
    """Django's, which ``atomic()`` calls last: the child that leaves its parent's block, perhaps on
    its way to its end, need not connect for that."""
    if wrapper.connection is not None or wrapper.in_atomic_block or not autocommit:
        type(wrapper).set_autocommit(wrapper, autocommit, *arguments, **named)


def _part_from_pools(held: _Held) -> None:
    """Leave psycopg's pools behind; Django makes new ones. "Closed" spares them the farewell to
    threads that the child does not have."""
    _pools().clear()
    for pool in held.pools:
        pool._closed = True


def _keep_for_ever(held: _Held) -> None:
    """Let no destructor run, not even when the interpreter ends: a driver may have been in the
    middle of a call in another thread, and SQLite would roll its parent's transaction back."""
    _here.held = None
    keep = _Held([], held.raws, held.pools)
    _kept.append(keep)
    if ctypes := sys.modules.get("ctypes"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(keep))


# SQLite has no server: its library counts in the process's memory what the process has locked. A
# child inherits the count without the locks. Nobody then protects what it reads, and with a WAL
# what it writes is lost when its parent closes the file. Only to close the inherited connection
# puts the count right; but in a transaction that would undo it in the middle of the parent's.


def _part_from_sqlite(wrapper: Wrapper) -> None:
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
        _barred.add(name)


def _refuse_a_barred_file(wrapper: Wrapper) -> None:
    name = str(wrapper.settings_dict["NAME"])
    if name in _barred:
        wrapper.connection, raw = None, wrapper.connection
        raw.close()
        raise OperationalError(
            f"this process was forked while its parent was busy in the SQLite database {name}, "
            f"which SQLite does not support: fork outside of atomic() and before other threads "
            f"use it, or start the process with multiprocessing's 'spawn'"
        )
