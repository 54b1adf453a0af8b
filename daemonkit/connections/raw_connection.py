"""A driver's connection: its socket, its session, and when the server last answered on it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from time import monotonic
from typing import Any

from daemonkit.connections.sessions import MySQLSession, Session, session_of
from daemonkit.connections.sockets import cut_socket, descriptor_of

ALIVE_BYPASS = 0.5
"""Seconds after its last good query in which a connection is validated only by polling its socket.
HikariCP calls this the alive bypass window, and has the same default."""


def pool_of(handle: Any) -> Any:
    """The ``psycopg_pool.ConnectionPool`` that has lent a driver's connection, or None.

    Its class is checked, because other packages also pool connections and use ``_pool``.
    """
    pool_class = getattr(sys.modules.get("psycopg_pool"), "ConnectionPool", None)
    pool = getattr(handle, "_pool", None)
    return pool if pool_class is not None and isinstance(pool, pool_class) else None


def _is_sqlite(handle: Any) -> bool:
    sqlite: Any = sys.modules.get("sqlite3")
    return sqlite is not None and isinstance(handle, sqlite.Connection)


class RawConnection:
    """A driver's connection. ``handle`` is the driver's object, or None if there is none.

    ``vendor`` is the wrapper's, ``autocommit`` the AUTOCOMMIT of its database settings.
    """

    def __init__(self, handle: Any, *, vendor: str, autocommit: bool) -> None:
        self.handle = handle
        self.is_pooled = pool_of(handle) is not None  # lent by psycopg's pool
        self._process = os.getpid()
        self._loan = getattr(handle, "daemonkit_loan", None)
        self.session = session_of(handle, vendor=vendor, autocommit=autocommit)
        self.tracked = self.session if isinstance(self.session, MySQLSession) else None
        """The session, if it must see each statement to know its state. Otherwise None."""
        self.reports_transactions = self.tracked is None and type(self.session) is not Session
        self.answered_at = monotonic()
        self.descriptor, self.inode = descriptor_of(handle)
        self._poll = select.poll()
        if self.descriptor is not None:
            self._poll.register(self.descriptor, select.POLLIN)

    @property
    def is_suspect(self) -> bool:
        """Whether a statement was sent that may have opened a transaction."""
        return self.tracked is not None and self.tracked.is_suspect

    def suspect(self) -> None:
        """Unseen statements may have been sent: ask the server before relying on the session."""
        self.answered_at = float("-inf")
        if self.tracked is not None:
            self.tracked.suspect()

    def answered_lately(self) -> bool:
        """Whether a query succeeded just now and the server has sent nothing since.

        A server that closes the session makes the descriptor readable. So does a notice or a TLS
        record: then Django's round trip validates the connection.
        """
        return (
            monotonic() - self.answered_at <= ALIVE_BYPASS
            and self.descriptor is not None
            and not self._poll.poll(0)
            and self.session.is_ready()
        )

    def has_data_to_read(self) -> bool:
        """Whether the server has sent data since its last answer, or has closed the socket."""
        return bool(self._poll.poll(0))

    def has_reconnected(self) -> bool:
        """Whether the driver has silently reconnected, as PyMySQL before 1.2 did in ``ping()``. The
        new session lacks Django's settings, and has another socket."""
        return self.descriptor is not None and not self.is_socket_of(self.handle)

    def is_socket_of(self, handle: Any) -> bool:
        """Whether a driver's connection has this socket."""
        return descriptor_of(handle) == (self.descriptor, self.inode)

    def release(self) -> None:
        """Release a connection that its wrapper no longer has. Never raises.

        After a ``wrapper.close()`` that was interrupted, SQLite's may still be open and keep its
        file locked, and a pooled one may still be lent.
        """
        if self.handle is None or self._process != os.getpid():  # it is our parent's
            return
        if self._loan is not None:
            from daemonkit.connections.lending import take_back

            take_back(self.handle, self._loan)
        elif _is_sqlite(self.handle):
            with contextlib.suppress(Exception):
                self.handle.close()

    def cut(self) -> None:
        """End the session, even in the middle of a query. Any thread may call this.

        ``shutdown`` works on the socket, not on the descriptor, so it wakes a read in C code that
        runs without the GIL. SQLite has no socket; its ``interrupt()`` ends the statement.
        """
        if self.descriptor is not None:
            cut_socket(self.descriptor, self.inode)  # does nothing if it was closed meanwhile
        elif hasattr(self.handle, "interrupt"):
            with contextlib.suppress(Exception):
                self.handle.interrupt()
