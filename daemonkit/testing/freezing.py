"""A database server that stops answering, without closing anything: frozen by SIGSTOP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from daemonkit.connections.session_thread import private_wrapper
from daemonkit.connections.sockets import descriptor_of

_LISTENING = "0A"  # the state in /proc/net/tcp


@contextlib.contextmanager
def frozen_server(using: str = "default", *, timeout: float = 60.0) -> Iterator[int]:
    """Stop the processes of the server of an alias while the block runs: a context manager.

    The kernel still accepts connections and data, but the server does not answer. The server must
    run on this machine, and this process must have the right to signal it. After ``timeout``
    it is resumed in any case. Yields the server's pid. Raises ``RuntimeError`` if there is no such
    server.
    """
    pid = server_pid(using)
    thaw = threading.Timer(timeout, _signal, (pid, signal.SIGCONT))
    thaw.daemon = True
    try:
        _signal(pid, signal.SIGSTOP)
    except PermissionError:
        raise RuntimeError(f"the server of {using!r}, process {pid}, is not ours to stop") from None
    thaw.start()
    try:
        yield pid
    finally:
        thaw.cancel()
        _signal(pid, signal.SIGCONT)


def server_pid(using: str = "default") -> int:
    """The pid of the server of an alias. Raises ``RuntimeError`` if it is not on this machine."""
    wrapper = private_wrapper(using, 10, "daemonkit-testing")
    if wrapper.vendor == "sqlite":
        raise RuntimeError("SQLite has no server that could be frozen")
    wrapper.ensure_connection()
    try:
        descriptor, _ = descriptor_of(wrapper.connection)
        with socket.socket(fileno=os.dup(descriptor or 0)) as link:
            pid = _listener_of(link)
    finally:
        wrapper.close()
    if not pid:
        raise RuntimeError(f"the server of {using!r} is no process that we can see: is it remote?")
    return pid


def _listener_of(link: socket.socket) -> int:
    if link.family == socket.AF_UNIX:
        size = struct.calcsize("3i")
        credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", credentials)[0])
    return _owner_of(_listening_inode(link.getpeername()[1]))


def _listening_inode(port: int) -> str:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                return fields[9]
    return ""


def _owner_of(inode: str) -> int:
    """The process with the lowest pid that has this socket open: the parent, not a child."""
    if not inode:
        return 0
    pids = sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                if str(link.readlink()) == f"socket:[{inode}]":
                    return pid
    return 0


def _signal(pid: int, signum: int) -> None:
    """Signal a process, and then its children: once stopped, it cannot start more of them."""
    os.kill(pid, signum)
    for child in [*_children_of(pid), *_children_of(pid)]:  # SIGSTOP takes a moment to arrive
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found
