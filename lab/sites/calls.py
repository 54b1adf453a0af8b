"""A Thrift service of small calls, on its side of the socket. Imports nothing of daemonkit."""

from __future__ import annotations

import gc
import io
import socket
from collections.abc import Callable
from typing import Any

import thriftpy2
from thriftpy2.server import TThreadedServer
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TServerSocket

from lab.sites.work import say, select_one, use

DEFAULT_AGE = 0
IDL = """
service Calls {
    void settle(1: bool kept),      // what CONN_MAX_AGE says from now on: None, or 0
    void nothing(),
    void select_one(),
}
"""
idl = thriftpy2.load_fp(io.StringIO(IDL), module_name="calls_thrift")


class Handler:
    """What every contestant answers; each adds its own care."""

    def settle(self, kept: bool) -> None:
        use(age=None if kept else DEFAULT_AGE, health=False)

    def nothing(self) -> None:
        pass

    def select_one(self) -> None:
        select_one()


def serve(handler: Any, listener: socket.socket | None = None) -> None:
    """Serve until the process is killed; a line on the standard output says where."""
    gc.freeze()
    transport = TServerSocket("127.0.0.1", 0, client_timeout=None)
    if listener is None:
        transport.listen()
    else:
        transport.sock = listener
    transport.listen = lambda: None  # serve() would do it again
    say(transport.sock.getsockname()[1])
    TThreadedServer(TProcessor(idl.Calls, handler), transport).serve()


def with_care(care: Callable[[Any], Any]) -> type[Handler]:
    """The handler with a decorator around each method, as people write it."""

    class Cared(Handler):
        settle = care(Handler.settle)
        nothing = care(Handler.nothing)
        select_one = care(Handler.select_one)

    return Cared
