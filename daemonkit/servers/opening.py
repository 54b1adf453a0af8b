"""Opens a listening socket: one that was kept, one that systemd hands over, or a new one."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from django.core.management.base import CommandError

from daemonkit.exits import Exit
from daemonkit.listeners.log import logger
from daemonkit.process import kept_sockets
from daemonkit.servers.address import Address, parse_address
from daemonkit.settings.parsing import usage

BACKLOG = 1024
"""Connections that may wait to be accepted, for example during a reload. The kernel's own limit,
``net.core.somaxconn``, may be lower."""

FIRST_DESCRIPTOR = 3
"""The first descriptor that systemd hands over; see sd_listen_fds(3)."""


def open_socket(text: str) -> int:
    """The descriptor of the socket that listens on this address, kept for the next image.

    Raises ``CommandError``: exit code 1 if the address is in use or not allowed, 2 if it is wrong.
    """
    address = parse_address(text)
    descriptor = kept_sockets.kept(text)
    if descriptor is None:
        descriptor = _handed_over(address)
    if descriptor is None:
        descriptor = _bound(address)
    kept_sockets.keep(text, descriptor)
    return descriptor


def _handed_over(address: Address) -> int | None:
    """The socket for this address among those that systemd has handed over."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    others = []
    for number in range(_count(os.environ.get("LISTEN_FDS", ""))):
        descriptor = FIRST_DESCRIPTOR + number
        if kept_sockets.is_kept(descriptor):
            continue
        try:
            found = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue
        with found:
            if address.is_of(found):
                os.set_inheritable(descriptor, False)
                kept_sockets.note_handed_over(address.text)
                return descriptor
            others.append(str(found.getsockname()))
    if others:
        logger.warning(
            "systemd hands over %s, but listen() asks for %s: say the same in ListenStream=",
            ", ".join(others),
            address.text,
        )
    return None


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _bound(address: Address) -> int:
    if address.path:
        _make_room(address.path)
    opened = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if not address.path:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family is socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address.name)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise _cannot_listen(address.text, error.strerror or str(error)) from None
    return opened.detach()


def _make_room(path: str) -> None:
    """Remove the socket that a process which was killed has left at this path.

    Raises ``CommandError`` if a process listens there, or if it is no socket.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return  # nothing is there, or bind() will say what is wrong
    if not stat.S_ISSOCK(mode):
        raise usage(f"listen(): {path} exists and is no socket: remove it, or name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except OSError:
            pass  # its backlog is full, or it is not ours
    raise _cannot_listen(f"unix:{path}", "Address already in use")


def _cannot_listen(text: str, why: str) -> CommandError:
    return CommandError(
        f"cannot listen on {text}: {why}; stop what listens there, or choose another address"
        if "in use" in why
        else f"cannot listen on {text}: {why}",
        returncode=Exit.TICK_FAILED,
    )
