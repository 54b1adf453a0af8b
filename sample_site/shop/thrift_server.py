"""A Thrift server with a thread for each client."""

import errno
import logging
import socket
import threading
import time

from thriftpy2.protocol import TBinaryProtocolFactory
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TBufferedTransportFactory, TSocket, TTransportException

from daemonkit import release_connections

logger = logging.getLogger(__name__)


class ThriftServer:
    """Serves the clients of a socket from ``self.listen()``, until that accepts no more.

    When the daemon stops, it lets the calls that have arrived be answered, and then hangs up.
    """

    def __init__(self, processor: TProcessor, listener: socket.socket) -> None:
        self._processor = processor
        self._listener = listener

    def serve(self) -> None:
        threads: set[threading.Thread] = set()
        while True:
            try:
                client, address = self._listener.accept()
                name = "{}:{}".format(*address)
                thread = threading.Thread(target=self._serve, args=[client], name=name)
                thread.start()
            except (OSError, RuntimeError) as error:
                if getattr(error, "errno", None) == errno.ESHUTDOWN:  # the daemon stops
                    break
                logger.warning("cannot accept a client: %s", error)
                time.sleep(0.1)  # too many open files or threads, most likely
            else:
                threads = {each for each in threads if each.is_alive()} | {thread}
        for thread in threads:
            thread.join()

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
            client.close()

    def _answer(self, client: socket.socket) -> None:
        transport = TBufferedTransportFactory().get_transport(TSocket(sock=client))
        protocol = TBinaryProtocolFactory().get_protocol(transport)
        while True:
            self._processor.process(protocol, protocol)
