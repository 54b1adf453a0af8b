"""A TCP proxy between a test and a server: a network that can be broken on request."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

Target = str | tuple[str, int]  # a unix socket's path, or host and port

FORWARD, STALL, DROP, LOSE_ANSWERS = "forward", "stall", "drop", "lose answers"
CHUNK = 64 * 1024
MAX_PENDING = 4 * CHUNK  # bytes for one side, beyond which nothing is read from the other


class End:
    """One socket of a link, and the bytes to be sent to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.pending = bytearray()
        self.is_ended = False  # the other side has sent its end of file
        self.is_client = True
        self.other: End | None = None


class Proxy:
    """Forwards bytes between 127.0.0.1:``port`` and a target, on its own thread.

    Every method has taken effect when it returns. To both sides a stalled or dropped link looks
    connected: the kernel acknowledges what they send, as it does for a frozen host.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.port = 0
        self.bytes_from_clients = 0
        self._mode = FORWARD
        self._ends: set[End] = set()
        self._jobs: list[tuple[Callable[[], None], Future[None]]] = []
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._run_jobs)
        self._listener: socket.socket | None = None
        self._is_closed = False
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What a test can ask for

    @property
    def links(self) -> int:
        """How many clients are connected."""
        return (len(self._ends) + 1) // 2

    def cut(self, *, reset: bool = False) -> None:
        """Close all links: as a process that ends, or with ``reset`` as a rebooted host."""
        self._do(lambda: self._close_ends(reset))

    def stall(self) -> None:
        """Forward nothing until ``resume()``, but keep what is sent. Connecting still succeeds."""
        self._do(lambda: self._set_mode(STALL))

    def drop(self) -> None:
        """Forward nothing until ``resume()``, and lose what is sent. Connecting still succeeds."""
        self._do(lambda: self._set_mode(DROP))

    def lose_answers(self) -> None:
        """Forward what clients send, and lose what the server answers, until ``resume()``."""
        self._do(lambda: self._set_mode(LOSE_ANSWERS))

    def refuse(self) -> None:
        """Refuse new links; the present ones stay."""
        self._do(self._unlisten)

    def resume(self) -> None:
        """Forward and accept again."""
        self._do(self._listen)
        self._do(lambda: self._set_mode(FORWARD))

    def close(self) -> None:
        """Close everything and end the thread; may be called again."""
        if not self._is_closed:
            self._do(self._shut)
            self._thread.join(5)
            assert not self._thread.is_alive(), "the proxy's thread has not ended"

    # The thread

    def _do(self, job: Callable[[], Any]) -> None:
        """Run a job on the proxy's thread, and wait for it."""
        done: Future[None] = Future()
        self._jobs.append((job, done))
        self._wake_out.send(b"!")
        done.result(5)

    def _run(self) -> None:
        while not self._is_closed:
            for key, events in self._selector.select():
                if not self._is_closed:
                    key.data(events) if callable(key.data) else self._move(key.data, events)
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _run_jobs(self, events: int) -> None:
        self._wake_in.recv(CHUNK)
        while self._jobs:
            job, done = self._jobs.pop(0)
            try:
                job()
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, events: int) -> None:
        if self._listener is None:  # closed by an earlier event of the same round
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client = End(self._listener.accept()[0])
            self._ends.add(client)
            if self._mode in (FORWARD, LOSE_ANSWERS):
                self._connect(client)
            self._watch(client)

    def _connect(self, client: End) -> None:
        """Connect a client to the target. If the target is unreachable, close the link."""
        try:
            upstream = End(connect_to(self.target))
        except OSError:
            self._close(client)
            return
        client.other, upstream.other = upstream, client
        upstream.is_client = False
        self._ends.add(upstream)
        self._watch(upstream)

    def _set_mode(self, mode: str) -> None:
        self._mode = mode
        for end in list(self._ends):
            if mode == FORWARD and end.other is None:
                self._connect(end)
        for end in list(self._ends):
            self._watch(end)

    def _shut(self) -> None:
        self._is_closed = True
        self._unlisten()
        self._close_ends(reset=False)

    # One link

    def _move(self, end: End, events: int) -> None:
        if end not in self._ends:  # closed by an earlier event of the same round
            return
        try:
            if events & selectors.EVENT_WRITE:
                del end.pending[: end.sock.send(end.pending)]
            if events & selectors.EVENT_READ:
                self._read(end)
        except BlockingIOError:
            pass
        except OSError:
            self._close(end)
            return
        for side in (end, end.other):
            if side is not None:
                self._watch(side)

    def _read(self, end: End) -> None:
        data = end.sock.recv(CHUNK)
        self.bytes_from_clients += len(data) if end.is_client else 0
        is_lost = self._mode == DROP or (self._mode == LOSE_ANSWERS and not end.is_client)
        if is_lost or end.other is None:
            end.is_ended = not data
        elif data:
            end.other.pending += data
        else:
            end.other.is_ended = end.is_ended = True

    def _watch(self, end: End) -> None:
        """Register the events that this end can handle now. Close a link that has ended."""
        if end not in self._ends:
            return
        if self._mode == FORWARD and end.is_ended and not end.pending:
            self._close(end)
            return
        events = self._wanted(end)
        registered = end.sock in self._selector.get_map()
        if events and registered:
            self._selector.modify(end.sock, events, end)
        elif events:
            self._selector.register(end.sock, events, end)
        elif registered:
            self._selector.unregister(end.sock)

    def _wanted(self, end: End) -> int:
        has_room = end.other is not None and len(end.other.pending) < MAX_PENDING
        reads = {FORWARD: has_room, LOSE_ANSWERS: has_room, STALL: False, DROP: True}[self._mode]
        events = selectors.EVENT_READ if reads and not end.is_ended else 0
        writes = end.pending and self._mode in (FORWARD, LOSE_ANSWERS)
        return events | (selectors.EVENT_WRITE if writes else 0)

    def _close_ends(self, reset: bool) -> None:
        while self._ends:
            self._close(next(iter(self._ends)), reset)

    def _close(self, end: End, reset: bool = False) -> None:
        for side in (end, end.other):
            if side in self._ends:
                self._ends.discard(side)
                with contextlib.suppress(KeyError):
                    self._selector.unregister(side.sock)
                close_socket(side.sock, reset)


def connect_to(target: Target) -> socket.socket:
    family = socket.AF_UNIX if isinstance(target, str) else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.settimeout(5)
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


def close_socket(sock: socket.socket, reset: bool) -> None:
    """Close a socket for all processes: ``shutdown`` also ends a copy in a forked child."""
    with contextlib.suppress(OSError):
        if reset and sock.family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            sock.shutdown(socket.SHUT_RDWR)
    sock.close()
