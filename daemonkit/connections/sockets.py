"""The socket of a driver's connection: find it, and shut it down from any thread."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from typing import Any


def descriptor_of(raw: Any) -> tuple[int | None, int]:
    """The descriptor and the inode of a connection's socket; ``(None, 0)`` if it has none.

    Ask when the connection is new: mysqlclient refuses to answer another thread while a query
    runs.
    """
    try:
        descriptor = raw._sock.fileno() if hasattr(raw, "_sock") else raw.fileno()
        return descriptor, os.fstat(descriptor).st_ino
    except Exception:
        return None, 0


def cut_socket(descriptor: int | None, inode: int) -> None:
    """Shut a socket down, if the descriptor still belongs to it. Any thread may call this.

    The connection may have been closed meanwhile, and its descriptor reused for another file. So
    this works on a duplicate, which no other thread can close, and compares inodes first.
    """
    with contextlib.suppress(OSError):
        if descriptor is not None and os.fstat(descriptor).st_ino == inode:
            with contextlib.closing(_duplicate(descriptor)) as handle:
                if os.fstat(handle.fileno()).st_ino == inode:
                    handle.shutdown(socket.SHUT_RDWR)


def _duplicate(descriptor: int) -> socket.SocketType:
    """Duplicate a socket in one step of the interpreter.

    A signal handler that raises between ``dup()`` and what closes the duplicate would leave it
    open.
    """
    return next(map(_socket_of, map(os.dup, [descriptor])))


_socket_of = functools.partial(socket.SocketType, -1, -1, -1)
"""Make a socket of a descriptor, with the family, type and protocol that it has."""
