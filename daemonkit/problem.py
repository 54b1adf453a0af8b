"""``Problem``: what an error of a database means."""

from __future__ import annotations

from enum import Enum


class Problem(Enum):
    """What an error of a database means for the connection or the transaction."""

    LOST = "connection lost, outcome unknown"
    """The connection was lost during a statement, which may or may not have taken effect."""

    UNREACHABLE = "database unreachable"
    """No connection could be made; nothing was sent."""

    MISCONFIGURED = "database settings refused by the server"
    """A wrong password, no such database, no such grant."""

    READ_ONLY = "database is read-only"
    """The session works but cannot write: a failover has made its server a replica."""

    RETRY = "transaction to be tried again"
    """A deadlock, a lock that took too long or a serialization failure; the connection is fine."""
