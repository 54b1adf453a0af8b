"""The databases under the soaks of connections: one alias, its sessions and its rows."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually

POOL = {"min_size": 1, "max_size": 4, "timeout": 10}
TABLE = "CREATE TABLE entry (id INTEGER PRIMARY KEY, note TEXT)"


class Database:
    """A private server, or an SQLite file, with the table ``entry``."""

    def __init__(self, variant: str, server: Server | None, folder: Path) -> None:
        self.variant = variant
        self.server = server
        self.file = folder / "soak.sqlite3"
        if server is None:
            self._on_file(TABLE)

    @property
    def is_pooled(self) -> bool:
        return self.variant == "pool"

    @property
    def idle_sessions(self) -> int:
        """How many sessions may stand when nothing is in use."""
        return int(POOL["max_size"]) if self.is_pooled else 0

    def settings(self) -> dict[str, Any]:
        if self.server is None:
            return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self.file)}
        return self.server.settings(OPTIONS={"pool": POOL} if self.is_pooled else {})

    def notes(self) -> set[str]:
        """Return what is committed, as another session sees it."""
        return {str(note) for (note,) in self._execute("SELECT note FROM entry")}

    def clear(self) -> None:
        self._execute("DELETE FROM entry")

    def kill_sessions(self) -> None:
        if self.server is not None:
            self.server.kill_sessions()

    def sessions_come_down_to(self, number: int) -> bool:
        if self.server is None:
            return True
        with contextlib.suppress(AssertionError):
            return eventually(lambda: len(self.server.sessions()) <= number)  # type: ignore[union-attr]
        return False

    def _execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self._on_file(sql) if self.server is None else self.server.execute(sql)

    def _on_file(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.file, timeout=10)) as connection, connection:
            return list(connection.execute(sql))


@contextlib.contextmanager
def database(variant: str) -> Iterator[Database]:
    """Start the server of a variant, and set Django up with it."""
    server: Server | None = None
    if variant != "sqlite":
        server = MariaDB() if variant == "mariadb" else PostgreSQL()
        server.start()
    with tempfile.TemporaryDirectory() as folder:
        found = Database(variant, server, Path(folder))
        set_up(found.settings())
        try:
            yield found
        finally:
            if server is not None:
                server.remove()


def set_up(alias: dict[str, Any]) -> None:
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": alias},
        INSTALLED_APPS=["daemonkit"],
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a Path for each would be garbage
