"""A driver's connection: its socket, its session, and when the server last answered on it."""

from __future__ import annotations

import contextlib
import select
import sys
from time import monotonic
from typing import Any

from daemonkit.connections.sessions import MySQLSession, Session, session_of
from daemonkit.connections.sockets import cut_socket, descriptor_of

ALIVE_BYPASS = 0.5
"""Seconds after its last good query for which a connection is validated by a look at its socket
alone. HikariCP calls the idea the alive bypass window, and has the same default."""


def pool_of(handle: Any) -> Any:
    """The ``psycopg_pool.ConnectionPool`` that has lent a driver's connection, or None.

    It is known by its class: others pool connections, too, and call an attribute ``_pool``.
    """
    pool_class = getattr(sys.modules.get("psycopg_pool"), "ConnectionPool", None)
    pool = getattr(handle, "_pool", None)
    return pool if pool_class is not None and isinstance(pool, pool_class) else None


class RawConnection:
    """What a driver has made. ``handle`` is the driver's object, or None for no connection.

    ``vendor`` is the wrapper's, ``autocommit`` what the settings of its database say.
    """

    def __init__(self, handle: Any, *, vendor: str, autocommit: bool) -> None:
        self.handle = handle
        self.is_pooled = pool_of(handle) is not None  # psycopg's pool has lent it
        self.session = session_of(handle, vendor=vendor, autocommit=autocommit)
        self.heard = self.session if isinstance(self.session, MySQLSession) else None
        """The session, if it has to be told what is sent. Others tell us."""
        self.tells = self.heard is None and type(self.session) is not Session
        self.answered_at = monotonic()
        self.descriptor, self.inode = descriptor_of(handle)
        self._poll = select.poll()
        if self.descriptor is not None:
            self._poll.register(self.descriptor, select.POLLIN)

    @property
    def is_suspect(self) -> bool:
        """Whether something was sent that may have opened a transaction unseen."""
        return self.heard is not None and self.heard.is_suspect

    def suspect(self) -> None:
        """Something may have been sent that nobody saw: trust it only when it has been asked."""
        self.answered_at = float("-inf")
        if self.heard is not None:
            self.heard.suspect()

    def answered_lately(self) -> bool:
        """Whether a query went well a moment ago and the server has said nothing since.

        A server that hangs up makes the descriptor readable. So do a notice or a TLS record, and
        then the round trip is made after all.
        """
        return (
            monotonic() - self.answered_at <= ALIVE_BYPASS
            and self.descriptor is not None
            and not self._poll.poll(0)
            and self.session.owes_nothing()
        )

    def has_something_to_read(self) -> bool:
        """Whether the server has sent something since its last answer, or has hung up."""
        return bool(self._poll.poll(0))

    def has_reconnected(self) -> bool:
        """Whether the driver has made another session in silence, as PyMySQL did in ``ping()``
        before 1.2: one without the settings, and without our knowledge of its socket."""
        return self.descriptor is not None and not self.is_socket_of(self.handle)

    def is_socket_of(self, handle: Any) -> bool:
        """Whether a driver's connection has this socket."""
        return descriptor_of(handle) == (self.descriptor, self.inode)

    def cut(self) -> None:
        """End the session from outside, even in the middle of a query. Any thread may call it.

        ``shutdown`` works on the socket, not on the descriptor, so it wakes a read in C code that
        runs without the GIL. SQLite has no socket; its ``interrupt()`` ends the statement.
        """
        if self.descriptor is not None:
            cut_socket(self.descriptor, self.inode)  # a no-op if it was closed since
        elif hasattr(self.handle, "interrupt"):
            with contextlib.suppress(Exception):
                self.handle.interrupt()
