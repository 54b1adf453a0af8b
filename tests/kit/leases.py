"""The table of leases on a server of the tests."""

from __future__ import annotations

from contextlib import AbstractContextManager

from daemonkit.models import Lease
from lab.servers import Server
from tests.kit.tables import empty_table

TABLE = Lease._meta.db_table


def lease_table(alias: str) -> AbstractContextManager[None]:
    """Provide an empty table while the block runs. A table that a migration made is kept."""
    return empty_table(Lease, alias)


def holder(server: Server) -> str:
    """The holder in the lease's row on the server: HOST:PID:TOKEN, "" or "no row"."""
    rows = server.execute(f"SELECT holder FROM {TABLE}")
    return str(rows[0][0]) if rows else "no row"


def epoch(server: Server) -> int:
    rows = server.execute(f"SELECT epoch FROM {TABLE}")
    return int(rows[0][0]) if rows else 0


def renewals(server: Server) -> int:
    """How often the lease was acquired, renewed or released since its row was made."""
    rows = server.execute(f"SELECT renewals FROM {TABLE}")
    return int(rows[0][0]) if rows else 0
