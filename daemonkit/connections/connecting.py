"""Connections that a thread is still opening: refuse them, or cut them from another thread.

A driver does not expose its socket before the server has answered. So the sockets of the process
are recorded when a thread starts to connect: its own socket is one of those opened since.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from daemonkit.connections import refusals
from daemonkit.connections.sockets import cut_socket
from daemonkit.connections.wrappers import Wrapper

_TCP_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_DEFAULT_PORTS = {"mysql": 3306, "postgresql": 5432}


class Attempt(NamedTuple):
    """A thread's attempt to connect: its target, and the inodes of the sockets open before it."""

    host: str
    port: int | None
    before: frozenset[int]

    def is_to(self, peer: str | int | None) -> bool:
        """Whether a socket connected to ``peer``, a path or a port, may belong to this attempt."""
        if isinstance(peer, str):
            return bool(peer) and peer.startswith(self.host)
        return peer is not None and peer == self.port


_attempts: dict[int, Attempt] = {}


def install() -> None:
    """Record each attempt to connect, or refuse it. A second call does nothing."""
    original = BaseDatabaseWrapper.connect
    if getattr(original, "is_tracked", False):
        return

    @functools.wraps(original)
    def connect(wrapper: Any) -> None:
        refusals.check()
        if wrapper.vendor == "sqlite":
            return original(wrapper)
        thread = threading.get_ident()
        outer = _attempts.get(thread)
        _attempts[thread] = _attempt_of(wrapper)
        try:
            return original(wrapper)
        finally:
            if outer is None:
                del _attempts[thread]
            else:
                _attempts[thread] = outer

    vars(connect)["is_tracked"] = True
    setattr(BaseDatabaseWrapper, "connect", connect)  # noqa: B010  mypy refuses it plain


def cut_attempts(threads: set[int], known: set[int]) -> None:
    """Cut the sockets on which these threads (``threading.get_ident()``) are connecting, but not
    the ``known`` ones: the inodes of sockets that belong to other connections."""
    for thread in threads:
        attempt = _attempts.get(thread)
        if attempt is None:
            continue
        for descriptor, inode in _sockets():
            is_new = inode not in attempt.before and inode not in known
            if is_new and attempt.is_to(_peer_of(descriptor, inode)):
                cut_socket(descriptor, inode)


def _attempt_of(wrapper: Wrapper) -> Attempt:
    settings = wrapper.settings_dict
    port = settings["PORT"] or _DEFAULT_PORTS.get(wrapper.vendor)
    host = str(settings["OPTIONS"].get("unix_socket") or settings["HOST"] or "/")
    return Attempt(host, int(port) if port else None, frozenset(inode for _, inode in _sockets()))


def _sockets() -> Iterator[tuple[int, int]]:
    """The descriptors and inodes of all sockets of the process."""
    try:
        names = os.listdir("/proc/self/fd")  # noqa: PTH208  half the time of Path.iterdir()
    except OSError:  # no /proc: the sockets are unknown, so none is cut
        return
    for name in names:
        with contextlib.suppress(OSError):
            found = os.fstat(int(name))
            if stat.S_ISSOCK(found.st_mode):
                yield int(name), found.st_ino


def _peer_of(descriptor: int, inode: int) -> str | int | None:
    """The path or the port of a socket's peer, also while it is still connecting."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as handle:
        try:
            peer = handle.getpeername()
        except OSError:  # no answer has come yet
            return _remote_port(inode)
        return peer if isinstance(peer, str) else int(peer[1])
    return None


def _remote_port(inode: int) -> int | None:
    """The remote port of a TCP socket: the third field of its row; the tenth is the inode."""
    for table in _TCP_TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] == str(inode):
                    return int(fields[2].rpartition(":")[2], 16)
    return None
