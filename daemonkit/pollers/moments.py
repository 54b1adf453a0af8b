"""The database's own time, in which claims and pauses are counted on all hosts alike."""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Expression


class FromNow(Expression):
    """The time of the database when the statement began, and so many seconds later."""

    output_field = DateTimeField()

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = float(seconds)

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper) -> Any:
        """For SQLite."""
        shift = f"{self.seconds:+.6f} seconds"
        return "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s)", [shift]

    def as_postgresql(self, compiler: Any, connection: BaseDatabaseWrapper) -> Any:
        return f"(statement_timestamp() + interval '{self.seconds:.6f} seconds')", []

    def as_mysql(self, compiler: Any, connection: BaseDatabaseWrapper) -> Any:
        return f"(UTC_TIMESTAMP(6) + INTERVAL {self.seconds:.6f} SECOND)", []
