"""A Thrift server with a thread for each client, which finishes its calls before it stops."""

import contextlib
import logging
import socket
import threading
import time
from types import TracebackType
from typing import Self

from thriftpy2.protocol import TBinaryProtocolFactory
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TBufferedTransportFactory, TSocket, TTransportException

from daemonkit import release_connections

logger = logging.getLogger(__name__)


class ThriftServer:
    """Serves from the start of its ``with`` block to the end.

    Then it accepts no more clients, answers the calls that have arrived, and closes the connections
    of idle clients. Raises ``OSError`` when it cannot listen.
    """

    def __init__(self, processor: TProcessor, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._processor = processor
        self._listener = socket.create_server((host, port), family=family, backlog=128)
        self._accepting = threading.Thread(target=self._accept, name="accept")
        self._clients: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._calls = 0
        self._draining = False

    @property
    def address(self) -> tuple[str, int]:
        host, port, *_ = self._listener.getsockname()
        return host, port

    @property
    def clients(self) -> int:
        return len(self._clients)

    def take_calls(self) -> int:
        """Return how many calls were answered since the last call of this method."""
        with self._lock:
            calls, self._calls = self._calls, 0
            return calls

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draining = True
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._accepting.join()
        self._listener.close()
        with self._lock:
            threads = list(self._clients)
            for client in self._clients.values():
                with contextlib.suppress(OSError):  # the client has closed it
                    # What has arrived can still be read and answered. Then comes an end of file.
                    client.shutdown(socket.SHUT_RD)
        for thread in threads:
            thread.join()

    def _accept(self) -> None:
        while not self._draining:
            try:
                self._let_in(*self._listener.accept())
            except (OSError, RuntimeError) as error:
                if not self._draining:
                    logger.warning("cannot accept a client: %s", error)
                    time.sleep(0.1)  # too many open files or threads, most likely

    def _let_in(self, client: socket.socket, address: tuple[str, int]) -> None:
        name = "{}:{}".format(*address)
        thread = threading.Thread(target=self._serve, args=[client], name=name)
        with self._lock:
            thread.start()
            self._clients[thread] = client

    def _serve(self, client: socket.socket) -> None:
        """Run a client's thread. At its end its database connections are closed."""
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._answer(client)
        except (TTransportException, OSError):
            pass  # the client has closed the connection, or we have
        except Exception as error:
            name = threading.current_thread().name
            logger.warning("closing %s, which does not speak our Thrift: %r", name, error)
        finally:
            release_connections()
            with self._lock:
                del self._clients[threading.current_thread()]
                client.close()

    def _answer(self, client: socket.socket) -> None:
        transport = TBufferedTransportFactory().get_transport(TSocket(sock=client))
        protocol = TBinaryProtocolFactory().get_protocol(transport)
        while True:
            self._processor.process(protocol, protocol)
            with self._lock:
                self._calls += 1
