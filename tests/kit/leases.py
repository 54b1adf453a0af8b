"""The lease's table on a server of the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import connections

from daemonkit.models import Lease
from lab.servers import Server

TABLE = Lease._meta.db_table


@contextlib.contextmanager
def lease_table(alias: str) -> Iterator[None]:
    """An empty table while the block runs; one that a migration made stays behind, empty."""
    connection = connections[alias]
    made = TABLE not in connection.introspection.table_names()
    if made:
        with connection.schema_editor() as editor:
            editor.create_model(Lease)
    Lease.objects.using(alias).all().delete()
    connection.close()
    try:
        yield
    finally:
        Lease.objects.using(alias).all().delete()
        if made:
            with connection.schema_editor() as editor:
                editor.delete_model(Lease)
        connection.close()


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
