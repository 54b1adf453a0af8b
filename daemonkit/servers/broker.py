"""How workers get their listening sockets: the supervisor opens them and hands them over.

The socket outlives a worker, so connections wait in its backlog while the worker is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket

from django.core.management.base import CommandError

from daemonkit.exits import Exit
from daemonkit.process import kept_sockets
from daemonkit.servers.opening import open_socket

ANSWER_TIME = 10.0
"""Seconds that a worker waits for its supervisor's answer."""

_LONGEST_MESSAGE = 4096

_door: socket.socket | None = None
"""The end of the supervisor's socket pair that its workers write to."""


class Broker:
    """The supervisor's side. ``descriptor`` is readable when a worker asks."""

    def __init__(self) -> None:
        global _door
        self._requests, _door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.setblocking(False)
        kept_sockets.read_environment()

    @property
    def descriptor(self) -> int:
        return self._requests.fileno()

    def answer(self) -> CommandError | None:
        """Answer one request with a descriptor. If there is none for this address, the worker ends
        without a sentence. Returns the error, which the supervisor ends with."""
        try:
            request, descriptors, _, _ = socket.recv_fds(self._requests, _LONGEST_MESSAGE, 1)
        except OSError:
            return None
        for number in descriptors:
            with socket.socket(fileno=number) as client:
                client.setblocking(False)
                return _answer(client, request.decode())
        return None


def _answer(client: socket.socket, address: str) -> CommandError | None:
    try:
        descriptor = open_socket(address)
    except CommandError as error:
        with contextlib.suppress(OSError):  # the worker has gone
            client.send(json.dumps(["", error.returncode]).encode())
        return error
    with contextlib.suppress(OSError):
        socket.send_fds(client, [b"[]"], [descriptor])
    return None


def socket_from_supervisor(address: str) -> int:
    """The descriptor of the socket for this address, from the supervisor if there is one.

    Raises ``CommandError``, as ``open_socket()`` does."""
    if _door is None:
        return open_socket(address)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            socket.send_fds(_door, [address.encode()], [theirs.fileno()])
        ours.settimeout(ANSWER_TIME)
        try:
            answer, descriptors, _, _ = socket.recv_fds(ours, _LONGEST_MESSAGE, 1)
        except TimeoutError:
            answer, descriptors = b"", []
    if not descriptors:
        sentence, code = json.loads(answer or b'["the supervisor does not answer", 1]')
        if not sentence:
            raise SystemExit(Exit(code))  # the supervisor says why
        raise CommandError(sentence, returncode=Exit(code))
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]
