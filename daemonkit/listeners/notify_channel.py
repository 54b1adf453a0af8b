"""The socket on which systemd receives messages: sd_notify(3)."""

from __future__ import annotations

import os
import socket


class Channel:
    """Sends messages to systemd. Sending never raises and never blocks.

    ``address`` is a path, or the name of an abstract socket, which begins with "@".
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._pid = os.getpid()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # not inherited over exec
        self._socket.setblocking(False)

    def send(self, *lines: str) -> bool:
        """Return whether the message was sent.

        False if the socket is gone or full, and in a forked child.
        """
        if os.getpid() != self._pid:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except (OSError, ValueError):  # ValueError: a NUL in the path
            return False
        return True

    def close(self) -> None:
        self._socket.close()
