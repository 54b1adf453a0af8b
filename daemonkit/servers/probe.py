"""Judges a server by its own port: whether it takes a connection."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable


def takes_connections(names: Iterable[tuple[socket.AddressFamily, object]], seconds: float) -> bool:
    """Whether each of these addresses takes a connection and answers or ends it within the time.

    The connection says nothing and closes its sending side. The kernel accepts it into the
    backlog by itself, so only an answer, or the end of the connection, shows that the server lives.
    """
    return all(_takes_connection(family, name, seconds) for family, name in names)


def _takes_connection(family: socket.AddressFamily, name: object, seconds: float) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect(name)  # type: ignore[arg-type]
            client.shutdown(socket.SHUT_WR)
            client.recv(1)
        except ConnectionResetError:
            return True  # it was accepted, and closed
        except OSError:
            return False
    return True


def own_ports() -> list[tuple[socket.AddressFamily, object]]:
    """The addresses that this process listens on, found in /proc (Linux)."""
    found: list[tuple[socket.AddressFamily, object]] = []
    with contextlib.suppress(FileNotFoundError):
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                with socket.socket(fileno=os.dup(int(number))) as each:
                    if _listens(each) and each.getsockname():
                        found.append((each.family, each.getsockname()))
    return list(dict.fromkeys(found))


def _listens(each: socket.socket) -> bool:
    is_stream = each.type == socket.SOCK_STREAM
    return is_stream and bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
