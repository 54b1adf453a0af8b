"""The rows of leases and claims. One statement reads a row, and one replaces it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from django.db import IntegrityError


class Row(NamedTuple):
    """A lease or a claim in the database. ``holder`` is "" if it was released."""

    holder: str
    epoch: int
    renewals: int
    seconds: float


class Execute(Protocol):
    """Run and commit one statement. Returns the number of rows that it found, and the rows."""

    def __call__(
        self, sql: str, params: Sequence[object]
    ) -> tuple[int, list[tuple[object, ...]]]: ...


class OwnedRow:
    """The row with one name. Its methods raise the errors of the database."""

    _now = ""
    """SQL for the database's current time, if the row has a column for it."""

    def __init__(self, table: str, name: str, execute: Execute) -> None:
        self.table, self.name, self._execute = table, name, execute

    def first_epoch(self) -> int:
        """Return the epoch for a new row."""
        return 1

    def read(self) -> Row | None:
        _, rows = self._execute(
            f"SELECT holder, epoch, renewals, seconds FROM {self.table} WHERE name = %s",
            (self.name,),
        )
        return Row(*rows[0]) if rows else None  # type: ignore[arg-type]

    def swap(self, old: Row | None, new: Row) -> bool:
        """Replace ``old`` by ``new``; False if the row is no longer ``old``."""
        if old is None:
            return self._insert(new)
        touched = f", touched = {self._now}" if self._now else ""
        found, _ = self._execute(
            f"UPDATE {self.table} "
            f"SET holder = %s, epoch = %s, renewals = %s, seconds = %s{touched} "
            f"WHERE name = %s AND holder = %s AND epoch = %s AND renewals = %s",
            (*new, self.name, old.holder, old.epoch, old.renewals),
        )
        return found == 1

    def _insert(self, new: Row) -> bool:
        column, value = (", touched", f", {self._now}") if self._now else ("", "")
        try:
            self._execute(
                f"INSERT INTO {self.table} (holder, epoch, renewals, seconds, name{column}) "
                f"VALUES (%s, %s, %s, %s, %s{value})",
                (*new, self.name),
            )
        except IntegrityError:  # another process was faster
            return False
        return True


UNUSED_DAYS = 90
"""The row of a claim is deleted when it was not used for this many days."""

_NOW = {
    "postgresql": "clock_timestamp()",
    "mysql": "UTC_TIMESTAMP(6)",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
}
_LONG_AGO = {
    "postgresql": f"clock_timestamp() - interval '{UNUSED_DAYS} days'",
    "mysql": f"UTC_TIMESTAMP(6) - INTERVAL {UNUSED_DAYS} DAY",
    "sqlite": f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '-{UNUSED_DAYS} days')",
}
_MICROSECONDS = {
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS bigint)",
    "mysql": "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED)",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
}


class LeaseRow(OwnedRow):
    """The row of a daemon's lease. It is never deleted."""


class ClaimRow(OwnedRow):
    """The row of one claim. It is deleted when it was not used for long, and inserted again later.

    All times are those of the database. The epoch of a new row is the number of microseconds since
    1970. That is more than any epoch of an earlier row with this name, so the epoch only grows.
    """

    def __init__(self, table: str, name: str, execute: Execute, vendor: str) -> None:
        super().__init__(table, name, execute)
        self._now, self._vendor = _NOW[vendor], vendor

    def first_epoch(self) -> int:
        self._delete_unused()
        _, rows = self._execute(f"SELECT {_MICROSECONDS[self._vendor]}", ())
        return int(str(rows[0][0]))

    def _delete_unused(self) -> None:
        self._execute(f"DELETE FROM {self.table} WHERE touched < {_LONG_AGO[self._vendor]}", ())
