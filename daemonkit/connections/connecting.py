"""Connections that a thread is only just making: refused, or cut from outside.

A driver tells nobody its socket before the server has answered. So the sockets of the process are
noted when a thread begins to connect. If it has to be cut, its socket is among the new ones.
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
    """A thread's attempt to connect: to where, and the inodes of the sockets there were before."""

    host: str
    port: int | None
    before: frozenset[int]

    def is_to(self, peer: str | int | None) -> bool:
        """Whether a socket with this peer, a path or a port, may be its own."""
        if isinstance(peer, str):
            return bool(peer) and peer.startswith(self.host)
        return peer is not None and peer == self.port


_attempts: dict[int, Attempt] = {}


def install() -> None:
    """Note each attempt to connect, and refuse it where it has to be. May be called again."""
    original = BaseDatabaseWrapper.connect
    if getattr(original, "is_noted", False):
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

    vars(connect)["is_noted"] = True
    setattr(BaseDatabaseWrapper, "connect", connect)  # noqa: B010  mypy refuses it plain


def cut_attempts(threads: set[int], known: set[int]) -> None:
    """Cut what these threads (``threading.get_ident()``) are connecting to. ``known`` are the
    inodes of sockets that others have: those are left alone."""
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
    except OSError:  # no /proc: nothing can be told apart, and nothing is cut
        return
    for name in names:
        with contextlib.suppress(OSError):
            found = os.fstat(int(name))
            if stat.S_ISSOCK(found.st_mode):
                yield int(name), found.st_ino


def _peer_of(descriptor: int, inode: int) -> str | int | None:
    """The path or the port that a socket is, or is being, connected to."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as handle:
        try:
            peer = handle.getpeername()
        except OSError:  # no answer has come yet
            return _remote_port(inode)
        return peer if isinstance(peer, str) else int(peer[1])
    return None


def _remote_port(inode: int) -> int | None:
    """The kernel's table of TCP sockets has the remote address third and the inode tenth."""
    for table in _TCP_TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] == str(inode):
                    return int(fields[2].rpartition(":")[2], 16)
    return None
