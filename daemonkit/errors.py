"""What a database error means.

Recovery never depends on the answer: any ``django.db.Error`` that leaves a unit of work drops the
connections that it used. The answer serves the log, the back-off and the exit code.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import CodeType

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper


class Problem(Enum):
    """The kinds of trouble with a database that are worth telling apart."""

    LOST = "connection lost, outcome unknown"
    """The connection died under a statement, which may or may not have taken effect."""

    UNREACHABLE = "database unreachable"
    """No connection could be made; nothing was sent."""

    MISCONFIGURED = "database settings refused by the server"
    """A wrong password, no such database, no such grant."""

    READ_ONLY = "database is read-only"
    """The session is alive, and useless: a failover has made its server a replica."""

    RETRY = "transaction to be tried again"
    """A deadlock, a lock that took too long or a serialization failure; the connection is fine."""


# MariaDB's mysqld_error.h and errmsg.h, MySQL's error reference. Numbers, never texts: libmariadb
# says "Server has gone away", libmysqlclient "MySQL server has gone away", a closed handle nothing.
_MYSQL = {
    Problem.LOST: {
        2006, 2013, 2055,  # gone away, lost during query, lost at a named system call
        2014, 2027,  # the protocol is out of step: suspect a connection shared over a fork
        5013, 5014,  # the same two in libmariadb
        1053, 1927, 3169,  # shutdown in progress, killed (MariaDB), killed (MySQL)
        1152, 1158, 1159, 1160, 1161, 1184,  # aborted, or cut while reading or writing packets
    },
    Problem.UNREACHABLE: {
        2002, 2003, 2005,  # no socket or refused, refused, unknown host
        1040, 1203, 1226, 1129,  # too many connections, of a user, of a resource; host blocked
        1047,  # Galera: this node is not ready
    },
    Problem.MISCONFIGURED: {
        1045, 1044, 1049, 1130,  # password, grant, database, host
        2026, 2059, 3118, 4151,  # TLS, authentication plugin, account locked (MySQL, MariaDB)
    },
    Problem.READ_ONLY: {1836, 3100, 1792},
    Problem.RETRY: {1205, 1213, 1020},
}  # fmt: skip
_MYSQL_MEANING = {code: problem for problem, codes in _MYSQL.items() for code in codes}
_IDLE_TIMEOUT = 4031  # MySQL only: in MariaDB the same number is about triggers
_OPTION_PREVENTS = 1290  # generic; the text alone tells --read-only from --secure-file-priv

# PostgreSQL's "Appendix A. Error Codes".
_SQLSTATE_MEANING = {
    "57P01": Problem.LOST,  # admin_shutdown: also pg_terminate_backend
    "57P02": Problem.LOST,  # crash_shutdown
    "57P04": Problem.LOST,  # database_dropped
    "57P05": Problem.LOST,  # idle_session_timeout
    "25P03": Problem.LOST,  # idle_in_transaction_session_timeout
    "25P04": Problem.LOST,  # transaction_timeout
    "57P03": Problem.UNREACHABLE,  # cannot_connect_now: starting up, or shutting down
    "53300": Problem.UNREACHABLE,  # too_many_connections
    "28000": Problem.MISCONFIGURED,
    "28P01": Problem.MISCONFIGURED,
    "3D000": Problem.MISCONFIGURED,
    "25006": Problem.READ_ONLY,
    "40001": Problem.RETRY,
    "40P01": Problem.RETRY,
    "55P03": Problem.RETRY,
}


def classify(error: BaseException | None) -> Problem | None:
    """What is wrong with the database, if that is what the error is about.

    The whole chain of ``__cause__`` and ``__context__`` is asked: when a server is killed in the
    middle of ``atomic()``, the block raises the 2002 of its own reconnect, and the 2013 stands
    behind it. A lost connection anywhere in the chain wins, because it leaves something open.
    """
    found = [problem for link in chain(error) if (problem := _meaning(link))]
    return Problem.LOST if Problem.LOST in found else (found[0] if found else None)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and everything behind it, each once, nearest first."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop(0)
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [link.__cause__, link.__context__]


def one_line(error: BaseException) -> str:
    """An exception in one line: its class and what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def _meaning(error: BaseException) -> Problem | None:
    if type(error).__module__.partition(".")[0] in ("MySQLdb", "pymysql"):
        problem = _mysql_meaning(error)
    elif hasattr(error, "sqlstate"):  # which PyMySQL's errors have, too
        problem = _postgresql_meaning(error)
    elif isinstance(error, Error):  # Django's, with MySQL's number up front: others have text there
        problem = _mysql_meaning(error)
    else:
        return None
    if problem is Problem.LOST and _happened_while_connecting(error):
        return Problem.UNREACHABLE  # lost in the handshake: no statement was ever sent
    return problem


def _mysql_meaning(error: BaseException) -> Problem | None:
    code = error.args[0] if error.args else None
    if not isinstance(code, int):
        # PyMySQL has no number for a handle that was closed before: a bare Error says it.
        closed = type(error).__module__ == "pymysql.err" and type(error).__name__ == "Error"
        return Problem.LOST if closed else None
    if code == 0 and type(error).__name__ == "InterfaceError":
        return Problem.LOST  # both drivers, on a handle that is closed
    if code == _IDLE_TIMEOUT:
        return Problem.LOST if _server_is_mysql() else None
    if code == _OPTION_PREVENTS:
        text = str(error).lower().replace("_", "-")
        return Problem.READ_ONLY if "read-only" in text else None
    return _MYSQL_MEANING.get(code)


def _postgresql_meaning(error: BaseException) -> Problem | None:
    sqlstate: str | None = getattr(error, "sqlstate", None)
    if sqlstate is not None:
        if sqlstate.startswith("08"):
            return Problem.LOST
        return _SQLSTATE_MEANING.get(sqlstate)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"PoolTimeout", "PoolClosed", "TooManyRequests", "ConnectionTimeout"}:
        return Problem.UNREACHABLE
    if "OperationalError" not in kinds:
        return None
    # psycopg has no code for a failed login, a refused or an unknown host: it leaves the failed
    # attempt in `pgconn`, and nothing there when a connection that once stood breaks.
    return Problem.UNREACHABLE if getattr(error, "pgconn", None) is not None else Problem.LOST


_CONNECT: CodeType = BaseDatabaseWrapper.connect.__wrapped__.__code__  # type: ignore[attr-defined]


def _happened_while_connecting(error: BaseException) -> bool:
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is _CONNECT:
            return True
        traceback = traceback.tb_next
    return False


def _server_is_mysql() -> bool:
    """Whether a server that this thread has asked for its version is MySQL proper."""
    return any(
        wrapper.vendor == "mysql"
        and "mysql_server_data" in vars(wrapper)
        and not getattr(wrapper, "mysql_is_mariadb", True)
        for wrapper in connections.all(initialized_only=True)
    )
