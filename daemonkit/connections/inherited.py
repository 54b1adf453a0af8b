"""What a forked child does with the connections that it has inherited.

The fork guard loads this before the first fork: in the child another thread of the parent, which
does not exist there, may hold the import lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any, TypeAlias

from django.db import OperationalError
from django.db.backends.signals import connection_created

from daemonkit.connections.link import forget
from daemonkit.connections.sockets import descriptor_of
from daemonkit.connections.wrappers import Wrapper, is_in_memory

Socket: TypeAlias = tuple[int | None, int]
"""A descriptor, None if there is none, and the inode that it had."""

_kept: list[list[Any]] = []
_unusable_files: set[str] = set()


class Inherited:
    """All that was open in the parent.

    ``pools`` are psycopg's, by alias, as Django has them. ``noted`` are the sockets of the drivers'
    connections ``raws``, by their ``id()``, as they were when they were opened.
    """

    def __init__(
        self,
        wrappers: list[Wrapper],
        raws: list[Any],
        pools: dict[str, Any],
        noted: dict[int, Socket],
    ) -> None:
        self._wrappers, self._raws, self._pools, self._noted = wrappers, raws, pools, noted

    def disown(self) -> None:
        """Make all of it unusable in this process, and keep it from ending the parent's sessions.

        Each step is done even if another one fails."""
        kept = [*self._raws, *self._pools.values()]
        with contextlib.ExitStack() as steps:
            steps.callback(_prevent_destructors, kept)
            for wrapper in self._wrappers:
                steps.callback(_reset_wrapper, wrapper)
            steps.callback(self._forget_pools)
            steps.callback(self._cover_sockets)  # the first

    def _cover_sockets(self) -> None:
        """Replace each socket by a dead one: a read finds the end of the stream, a write fails.

        Closing the descriptors would not be safe: drivers would go on using their numbers, which
        the kernel would give to other files.
        """
        sockets = [_socket_of(raw, self._noted.get(id(raw), (None, 0))) for raw in self._raws]
        dead, peer = socket.socketpair()
        peer.close()
        with dead:
            for descriptor, inode in sockets:
                if descriptor is not None and _is_socket(descriptor, inode):
                    os.dup2(dead.fileno(), descriptor, inheritable=False)

    def _forget_pools(self) -> None:
        """Forget psycopg's pools; Django makes new ones. A pool that is marked as closed does not
        try to stop its threads, which do not exist in the child."""
        pools = list(self._pools.values())
        self._pools.clear()
        for pool in pools:
            pool._closed = True


def _socket_of(raw: Any, noted: Socket) -> Socket:
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


def _prevent_destructors(kept: list[Any]) -> None:
    """Prevent all destructors, even when the interpreter ends: a driver may have been in the middle
    of a call on another thread, and SQLite would roll back the parent's transaction."""
    _kept.append(kept)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


# SQLite has no server: its library counts the locks of the process in the process's memory. A child
# inherits the count without the locks. Its reads are then unprotected, and with a WAL its writes
# are lost when its parent closes the file. Closing the inherited connection corrects the count, but
# it would roll back a transaction that the parent has open.


def _detach_sqlite(wrapper: Wrapper) -> None:
    raw, name = wrapper.connection, str(wrapper.settings_dict["NAME"])
    is_ours = wrapper._thread_ident == threading.get_ident()
    if is_ours and not raw.in_transaction:
        for cursor in gc.get_referrers(raw):  # an open one would keep the file open
            if issubclass(type(cursor), wrapper.Database.Cursor):
                cursor.close()
        raw.close()
    elif raw.in_transaction or Path(f"{name}-shm").exists():
        _unusable_files.add(name)
        connection_created.connect(_refuse_unusable_file, dispatch_uid="daemonkit.inherited")


def _refuse_unusable_file(connection: Wrapper, **_: Any) -> None:
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite" and name in _unusable_files:
        connection.connection, raw = None, connection.connection
        raw.close()
        raise OperationalError(
            f"this process was forked while its parent was busy in the SQLite database {name}, "
            f"which SQLite does not support: fork outside of atomic() and before other threads "
            f"use it, or start the process with multiprocessing's 'spawn'"
        )
