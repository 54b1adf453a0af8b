"""Which SQL statements are known to open no transaction, by their text."""

from __future__ import annotations

import re
from typing import Any

_USUAL = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ")  # how most of them begin: told at a glance
_PLAIN = re.compile(
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|SHOW|EXPLAIN|SAVEPOINT|RELEASE)\b", re.I
)
_BEGINS = re.compile(r"(?:.*;)?\s*(?:BEGIN|START\s+TRANSACTION)\b", re.I | re.S)
_ENDS = re.compile(r"(?:.*;)?\s*(?:COMMIT|ROLLBACK)\b(?!.*\bTO\b)", re.I | re.S)


def is_plain(sql: Any) -> bool:
    """Whether it is one statement, of a kind that opens no transaction while autocommit is on.

    ``sql`` is whatever the driver takes: text, bytes, or an object that is neither.
    """
    if not isinstance(sql, str):
        sql = _text(sql)
    return ";" not in sql and bool(sql.startswith(_USUAL) or _PLAIN.match(sql))


def begins_transaction(sql: Any) -> bool:
    """Whether its text says so: a BEGIN or a START TRANSACTION, with nothing after it."""
    return _BEGINS.match(_text(sql)) is not None


def ends_transaction(sql: Any) -> bool:
    """Whether its text says so: a COMMIT, or a ROLLBACK that is not TO a savepoint."""
    return _ENDS.match(_text(sql)) is not None


def _text(sql: Any) -> str:
    if isinstance(sql, (bytes, bytearray)):
        return sql.decode(errors="replace")
    return str(sql)
