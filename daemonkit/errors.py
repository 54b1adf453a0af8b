"""What an exception says: in one line, and about the database.

Recovery never depends on the answer: a unit of work that ends in a ``django.db.Error`` has its
connections cleaned whatever the error means. The answer serves the log, the back-off and the exit
code.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db import Error, connections

from daemonkit.error_codes import (
    MYSQL,
    MYSQL_IDLE_TIMEOUT,
    MYSQL_OPTION_PREVENTS,
    PSYCOPG2_CLOSED,
    SQLSTATES,
    Problem,
)

__all__ = ["Problem", "chain", "classify", "one_line"]

_MEMBERS_NAMED = 3
"""How many errors of a group are written out before the line says "and N more"."""

_CONNECTING = {
    ("django.db.backends.base.base", "BaseDatabaseWrapper.connect"),
    ("psycopg2", "connect"),
}
"""The module and name of each function that makes a connection. Others may wrap or replace it, so
that its name in a traceback is certain and its code object is not."""


def classify(error: BaseException | None) -> Problem | None:
    """What is wrong with the database, if that is what the error is about.

    Looks at the whole chain: when a server is killed in the middle of ``atomic()``, the block
    raises the 2002 of its own reconnect, and the 2013 stands behind it. A lost connection anywhere
    in the chain wins, because the outcome of its statement is unknown.
    """
    found = [problem for link in chain(error) if (problem := _meaning(link))]
    return Problem.LOST if Problem.LOST in found else (found[0] if found else None)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, the errors of a group, and those behind each, once each, nearest first.

    "Behind" an error are its ``__cause__`` and its ``__context__``.
    """
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop(0)
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [*_members(link), link.__cause__, link.__context__]


def one_line(error: BaseException) -> str:
    """An exception in one line: its class and text, and for a group those of its errors."""
    if members := _members(error):
        text = ": ".join(filter(None, (_message(error), _list(members))))
    else:
        text = _text(error)
    return f"{type(error).__name__}: {' '.join(text.split())}".rstrip(": ")


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def _message(group: BaseException) -> str:
    return str(getattr(group, "message", ""))  # str(group) counts its members, and we name them


def _list(members: tuple[BaseException, ...]) -> str:
    named = [one_line(member) for member in members[:_MEMBERS_NAMED]]
    if more := len(members) - len(named):
        named.append(f"and {more} more")
    return "; ".join(named)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"(its text failed with {type(failure).__name__})"


def _meaning(error: BaseException) -> Problem | None:
    if type(error).__module__.partition(".")[0] in ("MySQLdb", "pymysql"):
        problem = _mysql_meaning(error)
    elif hasattr(error, "sqlstate") or hasattr(error, "pgcode"):  # PyMySQL's have a sqlstate, too
        problem = _postgresql_meaning(error)
    elif isinstance(error, Error):  # Django's, with MySQL's number first: others have text there
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
    if code == MYSQL_IDLE_TIMEOUT:
        return Problem.LOST if _server_is_mysql() else None
    if code == MYSQL_OPTION_PREVENTS:
        text = _text(error).lower().replace("_", "-")
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
    # No driver has a code for a refused or failed login or an unknown host. psycopg 3 leaves the
    # failed attempt in `pgconn`, and nothing there when a connection that once stood breaks.
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
    """Whether a server that this thread has asked for its version is MySQL proper."""
    return any(
        wrapper.vendor == "mysql"
        and "mysql_server_data" in vars(wrapper)
        and not getattr(wrapper, "mysql_is_mariadb", True)
        for wrapper in connections.all(initialized_only=True)
    )
