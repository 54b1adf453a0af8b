"""The address that a server listens on, as its author writes it."""

from __future__ import annotations

import os
import re
import socket
from typing import Any, NamedTuple

from django.core.management.base import CommandError

from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.settings.parsing import usage

LONGEST_PATH = 107
"""Bytes that the path of a Unix socket may have; see unix(7)."""


class Address(NamedTuple):
    """Where to listen: ``name`` is what bind(2) takes for the family."""

    text: str
    family: socket.AddressFamily
    name: Any

    @property
    def path(self) -> str:
        """The path of a Unix socket; "" for any other."""
        return self.name if self.family is socket.AF_UNIX else ""

    def is_of(self, listening: socket.socket) -> bool:
        """Whether a socket, such as one from systemd, listens here."""
        if listening.family is not self.family:
            return False
        name = listening.getsockname()
        return bool(name == self.name if self.path else name[:2] == self.name[:2])


def parse_address(text: str) -> Address:
    """Parse "host:port", "[ipv6]:port" or "unix:/path".

    Raises ``CommandError``: exit code 2 for anything else, 1 for a host that has no address.
    """
    if not isinstance(text, str):
        raise usage(f'listen() takes a text such as "127.0.0.1:9090", not {text!r}')
    if text.startswith("unix:"):
        return _unix(text)
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\s]+)):([0-9]{1,5})", text)
    if found is None or int(found[3]) > 65535:
        raise usage(
            f'listen() takes "host:port", "[ipv6]:port" or "unix:/path", not {text!r}: '
            f'write "127.0.0.1:9090", or "0.0.0.0:9090" for all interfaces'
        )
    host, port = found[1] or found[2], int(found[3])
    try:
        family, _, _, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise CommandError(
            f"cannot listen on {text}: {one_line(error)}", returncode=Exit.TICK_FAILED
        ) from None
    return Address(text, family, name)


def _unix(text: str) -> Address:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path:
        raise usage(f'listen() takes an absolute path, as in "unix:/run/shop/prices", not {text!r}')
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise usage(f"listen(): the path of a Unix socket has at most {LONGEST_PATH} bytes: {path}")
    return Address(text, socket.AF_UNIX, path)
