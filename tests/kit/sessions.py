"""Sessions and rows: queries on an alias of this process, and what the server shows."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connections

from lab.servers import DATABASE, Server
from lab.waiting import eventually


def session(alias: str) -> int:
    """Ask the server for the id of our session. This is an ordinary query."""
    function = "CONNECTION_ID" if connections[alias].vendor == "mysql" else "pg_backend_pid"
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT {function}()")
        return int(cursor.fetchone()[0])


def run(alias: str, sql: str, *values: object) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, values or None)


def note(alias: str, text: str) -> None:
    run(alias, "INSERT INTO entry (note) VALUES (%s)", text)


def notes(server: Server, database: str = DATABASE) -> list[str]:
    """The notes of daemons and tests in the table ``entry``, in the order of the rows."""
    rows = server.execute("SELECT note FROM entry ORDER BY id", database=database)
    return [str(row[0]) for row in rows]


def is_gone(server: Server, *sessions: int) -> Callable[[], bool]:
    return lambda: not server.sessions() & set(sessions)


def kill(server: Server, victim: int) -> None:
    server.kill_session(victim)
    eventually(is_gone(server, victim))


def kill_all(server: Server) -> None:
    eventually(is_gone(server, *server.kill_sessions()))  # a pool may open others meanwhile
