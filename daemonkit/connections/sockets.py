"""The socket of a driver's connection: find it, and shut it down from any thread."""

from __future__ import annotations

import contextlib
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
    if descriptor is None:
        return
    try:
        duplicate = os.dup(descriptor)
    except OSError:
        return
    if os.fstat(duplicate).st_ino != inode:
        os.close(duplicate)
        return
    with socket.socket(fileno=duplicate) as handle, contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)
