"""The listening socket of a server, which stops with its daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from typing import Any
from weakref import WeakKeyDictionary

from daemonkit.process.stopping import close_pipe, pipe

FIRST_REQUEST_TIME = 1.0
"""Seconds that a new client has for its first request while the server stops."""


class Listener(socket.socket):
    """A listening socket as ``self.listen()`` returns it.

    Closing it, or shutting it down, ends this object only: the socket itself stays open for the
    next image and for other workers. ``accept()`` raises ``OSError`` (ESHUTDOWN) once the daemon
    stops. It remembers the connections that it has accepted, until they are closed.
    """

    _stopped, _stopper = -1, -1
    is_stopped = False

    address = ""
    """The address as ``self.listen()`` was given it."""

    def __init__(self, address: str, descriptor: int) -> None:
        super().__init__(fileno=os.dup(descriptor))
        self.address = address
        super().settimeout(0.0)  # several workers may be woken by one connection
        self._timeout: float | None = None
        self._stopped, self._stopper = pipe()
        self._accepted: WeakKeyDictionary[socket.socket, float] = WeakKeyDictionary()
        self._lock = threading.Lock()

    # What a socket can do

    def settimeout(self, value: float | None) -> None:
        self._timeout = value

    def gettimeout(self) -> float | None:
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        return self._timeout != 0

    def accept(self) -> tuple[socket.socket, Any]:
        until = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            if self._timeout != 0:
                self._wait(until)
            elif self.is_stopped:  # asyncio would leave behind what it accepts while it closes
                raise BlockingIOError
            try:
                client, name = super().accept()
            except BlockingIOError:  # another worker has taken it
                if self._timeout == 0:
                    raise
                continue
            except OSError:
                if self.is_stopped and self._timeout == 0:  # an event loop will soon close it
                    raise BlockingIOError from None
                raise
            with self._lock:
                self._accepted[client] = time.monotonic()
            return client, name

    def shutdown(self, how: int) -> None:
        """Accept no more by this object. A real shutdown would refuse the next image's clients."""
        self.stop()

    def close(self) -> None:
        super().close()
        pipes, self._stopped, self._stopper = (self._stopped, self._stopper), -1, -1
        if pipes[0] >= 0:
            close_pipe(*pipes)

    def _wait(self, until: float | None) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        ready = poll.poll(left)
        if self.is_stopped:
            raise OSError(errno.ESHUTDOWN, "the daemon stops: no more connections are accepted")
        if not ready:
            raise TimeoutError("timed out")

    # What its daemon does with it

    def stop(self) -> None:
        """Accept no more connections. From any thread."""
        if not self.is_stopped:
            self.is_stopped = True
            if self._stopper >= 0:
                os.write(self._stopper, b".")

    def refuse(self) -> None:
        """Refuse clients from now on, in all processes that share the socket."""
        with contextlib.suppress(OSError):  # it is closed already
            super().shutdown(socket.SHUT_RDWR)

    def open_connections(self) -> list[socket.socket]:
        """The connections that it has accepted and that are still open."""
        with self._lock:
            return [each for each in self._accepted if each.fileno() >= 0]

    def read_no_more(self) -> None:
        """Let the accepted connections end: what has arrived is still read and answered, then
        comes an end of file. A new client first gets time for its request."""
        before = time.monotonic() - FIRST_REQUEST_TIME
        for client in self.open_connections():
            with self._lock:
                is_new = self._accepted.get(client, before) > before
            if not is_new:
                with contextlib.suppress(OSError):  # the client has closed it
                    client.shutdown(socket.SHUT_RD)
