"""The identity of a process, and whether another process is gone."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

HOST_LENGTH = 150
"""Characters of a host name that are kept: they must fit into a database column."""


class Identity(NamedTuple):
    """Identifies a process on any host. The token distinguishes processes that have the same pid at
    different times, or on different hosts of the same name."""

    host: str
    pid: int
    token: str = ""

    def __str__(self) -> str:
        """HOST:PID, or HOST:PID:TOKEN."""
        return ":".join(filter(None, (self.host, str(self.pid), self.token)))

    @property
    def without_token(self) -> str:
        """HOST:PID, for people."""
        return f"{self.host}:{self.pid}"

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended. Always False for a process on another host."""
        if self.host != host_name():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it belongs to another user
            return False
        return False


def this_process() -> Identity:
    """This process, with a new token."""
    return Identity(host_name(), os.getpid(), os.urandom(4).hex())


def host_name() -> str:
    return socket.gethostname()[:HOST_LENGTH]


def parse_identity(text: str) -> Identity:
    """The identity behind the text HOST:PID:TOKEN."""
    host, pid, token = text.rsplit(":", 2)
    return Identity(host, int(pid), token)
