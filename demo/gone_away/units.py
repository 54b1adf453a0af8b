"""Units of work, and the outcome of a measurement."""

from __future__ import annotations

from typing import Any, TypeAlias

from django.db import connections

from demo.gone_away.remedies import Work

Outcome: TypeAlias = tuple[Any, ...]
"""A key of ``words.OUTCOMES``, and the numbers to fill in."""


def session(alias: str = "default") -> int:
    """Return the id of the session. The unit of work of most measurements."""
    return int(execute("SELECT CONNECTION_ID()", alias=alias)[0][0])


def execute(sql: str, *params: Any, alias: str = "default") -> list[tuple[Any, ...]]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def write(note: str, alias: str = "default") -> None:
    execute("INSERT INTO entry (note) VALUES (%s)", note, alias=alias)


def count_failed(unit: Work, times: int) -> int:
    failed = 0
    for _ in range(times):
        try:
            unit()
        except Exception:
            failed += 1
    return failed
