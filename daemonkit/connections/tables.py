"""Whether one of daemonkit's own tables exists, and how to create it."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, Error, connections

from daemonkit.connections.units import fresh_connections


def is_table_missing(alias: str, table: str) -> bool:
    """Whether a database answers but has no such table."""
    try:
        with fresh_connections:
            return table not in connections[alias].introspection.table_names()
    except Error:
        return False


def how_to_migrate(alias: str) -> str:
    """How to create daemonkit's tables: "run `manage.py migrate daemonkit`"."""
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
    return f"run `manage.py migrate daemonkit{database}`"
