"""Listening sockets that a process keeps when it re-executes itself.

Connections that arrive meanwhile wait in their backlog, and the next image accepts them.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat

KEPT = "DAEMONKIT_SOCKETS"
"""An environment variable that holds the descriptors by address, in JSON, for the next image."""

_offered: dict[str, int] = {}
_kept: dict[str, int] = {}
_handed_over: set[str] = set()


def keep(address: str, descriptor: int) -> None:
    """Keep a socket for the next image of this process, which will ask for this address."""
    _kept[address] = descriptor


def kept(address: str) -> int | None:
    """The descriptor of the socket that this process, or its last image, has kept for the
    address."""
    read_environment()
    if address in _offered:
        _kept[address] = _offered.pop(address)
    return _kept.get(address)


def is_kept(descriptor: int) -> bool:
    """Whether a descriptor belongs to a kept socket."""
    read_environment()
    return descriptor in _kept.values() or descriptor in _offered.values()


def addresses() -> list[str]:
    """The addresses of the kept sockets."""
    return list(_kept)


def forget(address: str) -> bool:
    """Close a kept socket. Whether it is this daemon's own, and not systemd's."""
    descriptor = _kept.pop(address)
    os.close(descriptor)
    return is_own(address)


def is_own(address: str) -> bool:
    """Whether the socket for this address is this daemon's own, and not systemd's."""
    return address not in _handed_over


def note_handed_over(address: str) -> None:
    """Note that the socket for this address is systemd's, which keeps it open."""
    _handed_over.add(address)


def close_unclaimed() -> None:
    """Close the sockets of the last image that nobody has asked for: its code has changed."""
    read_environment()
    while _offered:
        os.close(_offered.popitem()[1])


def for_next_image() -> dict[str, str]:
    """Let the next image inherit the kept sockets. Returns the variable that names them."""
    for descriptor in _kept.values():
        os.set_inheritable(descriptor, True)
    known = {address: [number, is_own(address)] for address, number in _kept.items()}
    return {KEPT: json.dumps(known)} if known else {}


def read_environment() -> None:
    """Take over what the last image has kept, before this process forks."""
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        for address, (descriptor, own) in json.loads(os.environ.pop(KEPT, "{}")).items():
            with contextlib.suppress(OSError, TypeError):
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.set_inheritable(descriptor, False)
                    _offered[address] = descriptor
                    if not own:
                        note_handed_over(address)
