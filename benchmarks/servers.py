"""The private servers that contestants are measured on."""

from __future__ import annotations

import contextlib

from lab.servers import MariaDB, PostgreSQL, Server
from lab.servers.base import is_installed

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


class Servers(contextlib.ExitStack):
    """Private servers, each started when it is first asked for, and removed at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[type[Server], Server | None] = {}

    @property
    def mariadb(self) -> Server | None:
        return self._get(MariaDB, "MySQLdb")

    @property
    def postgresql(self) -> Server | None:
        return self._get(PostgreSQL, "psycopg")

    def versions(self) -> list[str]:
        """Of those that have been started."""
        return [
            f"{kind.__name__} {_number(server.execute('SELECT version()')[0][0])}"
            for kind, server in self._started.items()
            if server is not None
        ]

    def _get(self, kind: type[Server], driver: str) -> Server | None:
        if kind not in self._started:
            missing = kind.why_missing() or ("" if is_installed(driver) else f"No {driver}.")
            self._started[kind] = None if missing else self._start(kind)
        return self._started[kind]

    def _start(self, kind: type[Server]) -> Server:
        server = kind()
        server.is_durable = True
        self.callback(server.remove)
        server.start()
        return server


def _number(version: str) -> str:
    """The number in "PostgreSQL 15.18 on x86_64-pc-linux-gnu", or "10.11.18-MariaDB"."""
    return next(word for word in version.split() if word[0].isdigit())
