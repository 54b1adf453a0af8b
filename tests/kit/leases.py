"""The lease's table on a server of the tests."""

from __future__ import annotations

from contextlib import AbstractContextManager

from daemonkit.models import Lease
from lab.servers import Server
from tests.kit.tables import empty_table

TABLE = Lease._meta.db_table


def lease_table(alias: str) -> AbstractContextManager[None]:
    """An empty table while the block runs; one that a migration made stays behind, empty."""
    return empty_table(Lease, alias)


def holder(server: Server) -> str:
    """Who has the lease, as it stands on the server: HOST:PID:TOKEN, "" or "no row"."""
    rows = server.execute(f"SELECT holder FROM {TABLE}")
    return str(rows[0][0]) if rows else "no row"


def epoch(server: Server) -> int:
    rows = server.execute(f"SELECT epoch FROM {TABLE}")
    return int(rows[0][0]) if rows else 0


def renewals(server: Server) -> int:
    """How often the lease was taken, renewed or given back since its row was made."""
    rows = server.execute(f"SELECT renewals FROM {TABLE}")
    return int(rows[0][0]) if rows else 0
