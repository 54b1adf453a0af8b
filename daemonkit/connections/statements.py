"""What the text of an SQL statement says about transactions."""

from __future__ import annotations

import re
from typing import Any

_USUAL = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ")  # faster than the regular expression
_PLAIN = re.compile(
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|SHOW|EXPLAIN|SAVEPOINT|RELEASE)\b", re.I
)
_COMMENT = re.compile(r"/\*(?!!).*?\*/|(?:--\s|#)[^\n]*", re.S)
_BEGINS = re.compile(r"\s*(?:BEGIN|START\s+TRANSACTION)\b", re.I)
_ENDS = re.compile(r"\s*(?:COMMIT|ROLLBACK)\b(?!.*\bTO\b)", re.I | re.S)


def is_plain(sql: Any) -> bool:
    """Whether ``sql`` is a single statement that opens no transaction while autocommit is on.

    ``sql`` is anything that the driver accepts: text, bytes, or an object such as a composed query.
    """
    if not isinstance(sql, str):
        sql = _text(sql)
    return ";" not in sql and bool(sql.startswith(_USUAL) or _PLAIN.match(sql))


def leaves_open(sql: Any, *, was_open: bool) -> bool:
    """Whether a transaction is open after ``sql``, judging by its text. This is only a guess: a
    quoted semicolon or a stored procedure makes it wrong."""
    for statement in _COMMENT.sub(" ", _text(sql)).split(";"):
        if _BEGINS.match(statement):
            was_open = True
        elif _ENDS.match(statement):
            was_open = False
    return was_open


def _text(sql: Any) -> str:
    if isinstance(sql, (bytes, bytearray)):
        return sql.decode(errors="replace")
    return str(sql)
