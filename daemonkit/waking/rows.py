"""The rows that count wake-ups, one for each name, and the SQL that reads and raises them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

CHANNEL = "daemonkit_wake"
"""The channel of PostgreSQL's NOTIFY. The payload is the name."""

Execute: TypeAlias = Callable[[str, Sequence[Any]], tuple[int, list[tuple[Any, ...]]]]
"""Run and commit one statement. Returns the number of rows that it found, and the rows."""

_UPSERT = (
    "INSERT INTO {table} (name, times) VALUES (%s, 1) "
    "ON CONFLICT (name) DO UPDATE SET times = {table}.times + 1"
)
_RAISE = {
    "postgresql": f"WITH raised AS ({_UPSERT} RETURNING name) "
    f"SELECT pg_notify('{CHANNEL}', name) FROM raised",
    "mysql": "INSERT INTO {table} (name, times) VALUES (%s, 1) "
    "ON DUPLICATE KEY UPDATE times = times + 1",
    "sqlite": _UPSERT,
}
VENDORS = tuple(_RAISE)
"""The databases, by Django's name for their vendor, that can carry wake-ups."""


def table() -> str:
    from daemonkit.models import Wake  # models cannot be loaded before the apps are

    return Wake._meta.db_table


def read(execute: Execute, name: str) -> int:
    """How often this name has been woken; 0 if never."""
    _, rows = execute(f"SELECT times FROM {table()} WHERE name = %s", (name,))
    return int(rows[0][0]) if rows else 0


def count_one(execute: Execute, vendor: str, name: str) -> None:
    """Count one more wake-up, and on PostgreSQL send its NOTIFY, in one statement."""
    execute(_RAISE[vendor].format(table=table()), (name,))
