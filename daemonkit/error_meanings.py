"""What one exception of a driver, or of Django, says about the database."""

from __future__ import annotations

from django.db import Error, connections

from daemonkit.error_codes import (
    MYSQL,
    MYSQL_IDLE_TIMEOUT,
    MYSQL_OPTION_PREVENTS,
    PSYCOPG2_CLOSED,
    SQLSTATES,
)
from daemonkit.problem import Problem

_CONNECTING = {
    ("django.db.backends.base.base", "BaseDatabaseWrapper.connect"),
    ("psycopg2", "connect"),
}
"""The module and name of each function that opens a connection. Other packages may wrap or replace
it. Its name still appears in a traceback then; its code object may not."""


def meaning(error: BaseException) -> Problem | None:
    """The problem that this exception reports, without the others of its chain."""
    if type(error).__module__.partition(".")[0] in ("MySQLdb", "pymysql"):
        problem = _mysql_meaning(error)
    elif hasattr(error, "sqlstate") or hasattr(error, "pgcode"):  # PyMySQL's also have a sqlstate
        problem = _postgresql_meaning(error)
    elif isinstance(error, Error):  # Django's: for MySQL its first argument is a number
        problem = _mysql_meaning(error)
    else:
        return None
    if problem is Problem.LOST and _happened_while_connecting(error):
        return Problem.UNREACHABLE  # lost in the handshake, before any statement was sent
    return problem


def _mysql_meaning(error: BaseException) -> Problem | None:
    code = error.args[0] if error.args else None
    if not isinstance(code, int):
        # For a handle that is closed already, PyMySQL raises a bare Error without a number.
        closed = type(error).__module__ == "pymysql.err" and type(error).__name__ == "Error"
        return Problem.LOST if closed else None
    if code == 0 and type(error).__name__ == "InterfaceError":
        return Problem.LOST  # both drivers, on a handle that is closed
    if code == MYSQL_IDLE_TIMEOUT:
        return Problem.LOST if _server_is_mysql() else None
    if code == MYSQL_OPTION_PREVENTS:
        text = str(error.args).lower().replace("_", "-")
        return Problem.READ_ONLY if "read-only" in text else None
    return MYSQL.get(code)


def _postgresql_meaning(error: BaseException) -> Problem | None:
    is_psycopg2 = hasattr(error, "pgcode")
    sqlstate: str | None = getattr(error, "pgcode" if is_psycopg2 else "sqlstate")
    if sqlstate is not None:
        return Problem.LOST if sqlstate.startswith("08") else SQLSTATES.get(sqlstate)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"PoolTimeout", "PoolClosed", "TooManyRequests", "ConnectionTimeout"}:
        return Problem.UNREACHABLE
    if is_psycopg2 and error.args == (PSYCOPG2_CLOSED,):
        return Problem.LOST
    if "OperationalError" not in kinds:
        return None
    # No driver has a code for a refused or failed login or an unknown host. psycopg 3 sets `pgconn`
    # to the failed attempt, but not when an established connection breaks.
    has_failed_attempt = getattr(error, "pgconn", None) is not None
    return Problem.UNREACHABLE if has_failed_attempt else Problem.LOST


def _happened_while_connecting(error: BaseException) -> bool:
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if (frame.f_globals.get("__name__"), frame.f_code.co_qualname) in _CONNECTING:
            return True
        traceback = traceback.tb_next
    return False


def _server_is_mysql() -> bool:
    """Whether one of this thread's servers is known to be MySQL, not MariaDB. Asks no server."""
    return any(
        wrapper.vendor == "mysql"
        and "mysql_server_data" in vars(wrapper)
        and not getattr(wrapper, "mysql_is_mariadb", True)
        for wrapper in connections.all(initialized_only=True)
    )
