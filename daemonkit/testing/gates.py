"""Gates: points in a daemon's code at which a test can hold it, so that no test relies on time.

A daemon calls ``gate("written")``. A test closes the gate, does something while the daemon waits
there, and opens it. This works for a daemon in the test's own process and for one that the test has
started: both connect to the test's socket, whose address is in the environment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from types import TracebackType

ADDRESS = "DAEMONKIT_GATES"
"""The environment variable with the address of the test's socket."""


def gate(name: str) -> None:
    """Wait here while a test keeps the gate ``name`` closed. Outside of a test, do nothing."""
    address = os.environ.get(ADDRESS)
    if not address:
        return
    with socket.socket(socket.AF_UNIX) as test:
        try:
            test.connect(address)
        except OSError:  # the test has ended
            return
        with contextlib.suppress(ConnectionError):
            test.sendall(name.encode() + b"\n")
            test.recv(1)


class Gates:
    """All gates of a test, which are open until the test closes them. A context manager.

    ``gates.close("written")`` closes one and returns it. At the end of the block all are opened.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._gates: dict[str, Gate] = {}
        self._folder = ""
        self._server = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Gates:
        self._folder = tempfile.mkdtemp(prefix="gates-")
        address = f"{self._folder}/socket"
        self._server.bind(address)
        self._server.listen(64)
        os.environ[ADDRESS] = address
        threading.Thread(target=self._serve, name="daemonkit-gates", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.environ.pop(ADDRESS, None)
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        for each in list(self._gates.values()):
            each.open()

    def __getitem__(self, name: str) -> Gate:
        with self._changed:
            return self._gates.setdefault(name, Gate(name, self._changed))

    def close(self, name: str) -> Gate:
        """Close a gate: daemons that reach it wait."""
        found = self[name]
        found.close()
        return found

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the server was closed
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._receive, args=(client,), daemon=True).start()

    def _receive(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client.makefile() as lines:
            self[lines.readline().rstrip("\n")].receive(client)


class Gate:
    """One gate. Its waiting methods raise ``AssertionError`` after ``within`` seconds."""

    def __init__(self, name: str, changed: threading.Condition) -> None:
        self.name = name
        self.arrivals = 0
        """How often a daemon has reached this gate."""
        self._changed = changed
        self._is_closed = False
        self._held: list[socket.socket] = []

    def close(self) -> None:
        """Make all daemons that reach the gate from now on wait."""
        with self._changed:
            self._is_closed = True

    def open(self) -> None:
        """Release the waiting daemons. Later ones do not wait."""
        with self._changed:
            self._is_closed = False
            held, self._held = self._held, []
        for client in held:
            _release(client)

    def let_one_through(self, within: float = 30.0) -> None:
        """Wait until a daemon waits at the gate, and release the first one."""
        with self._changed:
            if not self._changed.wait_for(self._drop_killed, within):
                raise AssertionError(f"not within {within:g} s: a daemon at the gate {self.name!r}")
            client = self._held.pop(0)
        _release(client)

    def wait_for(self, arrivals: int = 1, within: float = 30.0) -> None:
        """Wait until daemons have reached the gate ``arrivals`` times since the test began."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.arrivals >= arrivals, within):
                raise AssertionError(
                    f"not within {within:g} s: {arrivals} arrivals at the gate {self.name!r} "
                    f"(there were {self.arrivals})"
                )

    def receive(self, client: socket.socket) -> None:
        """Called when a daemon has reached this gate."""
        with self._changed:
            self.arrivals += 1
            if self._is_closed:
                self._held.append(client)
            self._changed.notify_all()
            is_held = self._is_closed
        if not is_held:
            _release(client)

    def _drop_killed(self) -> bool:
        """Remove daemons that were killed while they waited. Return whether others are waiting."""
        for client in [client for client in self._held if _is_gone(client)]:
            self._held.remove(client)
            client.close()
        return bool(self._held)


def _is_gone(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def _release(client: socket.socket) -> None:
    with contextlib.suppress(OSError), client:  # the daemon may have been killed
        client.sendall(b".")
