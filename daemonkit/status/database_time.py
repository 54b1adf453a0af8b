"""The database's own clock, in expressions for the ORM. No host's clock is compared with it."""

from __future__ import annotations

from typing import Any

from django.db.models import DateTimeField, FloatField, Func

_LATER = {
    "postgresql": "(clock_timestamp() + make_interval(secs => %s::double precision))",
    "mysql": "TIMESTAMPADD(MICROSECOND, %s, UTC_TIMESTAMP(6))",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s)",
}


class Now(Func):
    """The database's time, ``seconds`` from now. It is in UTC also without ``USE_TZ``."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(output_field=DateTimeField())
        self.seconds = seconds

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> Any:  # type: ignore[override]
        return _LATER[connection.vendor], [_parameter(connection.vendor, self.seconds)]


class SecondsSince(Func):
    """How many seconds ago a column's time was; below zero if it is still to come."""

    output_field = FloatField()
    template = "((julianday('now') - julianday(%(expressions)s)) * 86400.0)"

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "EXTRACT(EPOCH FROM (clock_timestamp() - %(expressions)s))"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "(TIMESTAMPDIFF(MICROSECOND, %(expressions)s, UTC_TIMESTAMP(6)) / 1000000)"
        return self.as_sql(compiler, connection, template=template, **context)


def _parameter(vendor: str, seconds: float) -> float | int | str:
    if vendor == "mysql":
        return round(seconds * 1_000_000)
    return f"{seconds:+.6f} seconds" if vendor == "sqlite" else seconds
