"""A second client of the server, outside of Django, which inspects and kills sessions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import MySQLdb
from django.db import connections

from lab.waiting import eventually


class Observer:
    """Opens a connection for each question, so that a forked child inherits none."""

    def __init__(self, host: str, port: int, **login: str) -> None:
        self.address = host, port
        self.login = {"host": host, "port": port, **login}

    def ask(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(MySQLdb.connect(**self.login, autocommit=True)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql, params or None)
            return list(cursor.fetchall())

    def sessions(self) -> set[int]:
        return {row[0] for row in self.ask("SELECT id FROM information_schema.processlist")}

    def is_sleeping(self, session: int) -> bool:
        """Return whether a session runs SELECT SLEEP(...)."""
        sql = "SELECT state FROM information_schema.processlist WHERE id = %s"
        return self.ask(sql, session) == [("User sleep",)]

    def rows(self, note: str) -> int:
        """Return how many rows with this note are committed."""
        (count,) = self.ask("SELECT COUNT(*) FROM entry WHERE note = %s", note)[0]
        return int(count)

    def kill(self, *sessions: int) -> None:
        """KILL sessions, and wait until they are gone. One that has ended already is fine."""
        for session in sessions:
            with contextlib.suppress(MySQLdb.OperationalError):  # 1094: unknown thread
                self.ask(f"KILL {session:d}")
        self.wait_until_gone(sessions)

    def wait_until_gone(self, sessions: Iterable[int]) -> None:
        eventually(lambda: not self.sessions() & set(sessions), within=30, every=0.02)

    def count_left(self, sessions: Iterable[int], within: float = 2.0) -> int:
        """Return how many of these sessions the server still has after ``within`` seconds."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.sessions() & set(sessions), within=within, every=0.02)
        return len(self.sessions() & set(sessions))


def observer() -> Observer:
    """Return an observer of Django's default database."""
    entry = connections.settings["default"]
    return Observer(
        entry["HOST"],
        int(entry["PORT"]),
        user=entry["USER"],
        password=entry["PASSWORD"],
        database=entry["NAME"],
    )
