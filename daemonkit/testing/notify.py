"""A notify socket that a test reads in place of systemd."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from types import TracebackType


class NotifySocket:
    """A socket like the one on which systemd listens: a context manager.

    While the block runs, $NOTIFY_SOCKET holds its address, for daemons of this process and of
    processes that it starts. ``address`` is a path, or "@" and a name in the abstract namespace.
    """

    def __init__(self, address: str = "") -> None:
        self._folder = "" if address else tempfile.mkdtemp(prefix="notify-")
        self.address = address or f"{self._folder}/socket"
        self.received: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._before: str | None = None

    def __enter__(self) -> NotifySocket:
        address = self.address
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self._before = os.environ.get("NOTIFY_SOCKET")
        os.environ["NOTIFY_SOCKET"] = self.address
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        if self._before is None:
            os.environ.pop("NOTIFY_SOCKET", None)
        else:
            os.environ["NOTIFY_SOCKET"] = self._before
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables for a process that does not inherit this environment."""
        return {"NOTIFY_SOCKET": self.address}

    def messages(self) -> list[list[str]]:
        """Every message until now, each as a list of lines: ``["READY=1", "STATUS=waits"]``."""
        while True:
            try:
                self.received.append(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return self.received

    def lines(self) -> list[str]:
        """The lines of every message until now."""
        return [line for message in self.messages() for line in message]

    def statuses(self) -> list[str]:
        """Every status until now."""
        return [line.removeprefix("STATUS=") for line in self.lines() if line.startswith("STATUS=")]

    def wait_for(self, beginning: str, within: float = 20.0, *, count: int = 1) -> None:
        """Wait until ``count`` lines start with ``beginning``. Raises ``AssertionError`` after
        ``within`` seconds."""
        deadline = time.monotonic() + within
        while sum(line.startswith(beginning) for line in self.lines()) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within:g} s: {beginning!r} in {self.lines()}")
            time.sleep(0.005)
