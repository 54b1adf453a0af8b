"""A private PostgreSQL."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Sequence
from typing import Any

from lab.servers.base import DATABASE, PASSWORD, USER, Server, Session, find_binary, is_installed
from lab.waiting import eventually


class PostgreSQL(Server):
    """A private PostgreSQL. It refuses to run as root, so it runs as another user then."""

    vendor = "postgresql"
    scheme = "postgres"
    stop_signal = signal.SIGINT  # a "fast" shutdown; SIGTERM would wait for the clients
    system_user = "postgres"

    def __init__(self) -> None:
        super().__init__()
        self.data = self.folder / "data"

    @classmethod
    def binary(cls, name: str) -> str | None:
        return find_binary(name, f"/usr/lib/postgresql/*/bin/{name}", f"/usr/pgsql-*/bin/{name}")

    @classmethod
    def why_missing(cls) -> str | None:
        if not (cls.binary("postgres") and cls.binary("initdb")):
            return "PostgreSQL is not installed (Debian: postgresql)."
        if not is_installed("psycopg"):
            return "The driver for PostgreSQL is not installed (psycopg)."
        return None

    @property
    def socket_host(self) -> str:
        return str(self.folder)

    @property
    def socket_port(self) -> int:
        return self.port

    def install_command(self) -> list[str]:
        return [
            self.binary("initdb") or "initdb",
            f"--pgdata={self.data}",
            "--username=root",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]

    def command(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "shared_buffers": "32MB",
            "max_connections": 50,
            "fsync": "on" if self.is_durable else "off",
            "full_page_writes": "off",
            "log_min_messages": "warning",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [self.binary("postgres") or "postgres", "-D", str(self.data), *options]

    def prepare(self) -> None:
        self.execute(f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{PASSWORD}'", (), None)
        self.create_database(DATABASE)
        self.execute("CREATE TABLE entry (id SERIAL PRIMARY KEY, note VARCHAR(200))")
        self.execute(f"ALTER TABLE entry OWNER TO {USER}")
        rules = ["local all root trust", "local all all scram-sha-256"]
        rules += ["host all root 127.0.0.1/32 reject", "host all all 127.0.0.1/32 scram-sha-256"]
        (self.data / "pg_hba.conf").write_text("\n".join(rules) + "\n")
        self._reload()

    def clear(self) -> None:
        if others := ", ".join(self.tables() - {"entry"}):
            self.execute(f"DROP TABLE {others} CASCADE")
        self.execute("TRUNCATE TABLE entry RESTART IDENTITY")

    def set_idle_timeout(self, seconds: int | None) -> None:
        """Set ``idle_session_timeout``; PostgreSQL also applies it to present sessions."""
        self.configure("idle_session_timeout", f"{seconds or 0}s")

    def connect(
        self,
        *,
        socket: bool = True,
        port: int | None = None,
        driver: str = "psycopg",
        autocommit: bool = True,
        **options: Any,
    ) -> Any:
        """Return a bare connection of ``psycopg`` or ``psycopg2``."""
        where: dict[str, Any] = {"host": "127.0.0.1", "port": port or self.port}
        if port is None and socket:
            where = {"host": self.socket_host, "port": self.socket_port}
        login = {"user": USER, "password": PASSWORD, "dbname": DATABASE}
        connection = importlib.import_module(driver).connect(**{**where, **login, **options})
        connection.autocommit = autocommit
        return connection

    def execute(
        self, sql: str, params: Sequence[Any] = (), database: str | None = DATABASE
    ) -> list[tuple[Any, ...]]:
        psycopg = importlib.import_module("psycopg")
        with psycopg.connect(
            host=self.socket_host,
            port=self.socket_port,
            user="root",
            dbname=database or "postgres",
            autocommit=True,
            connect_timeout=5,
            options="-c lock_timeout=10s -c statement_timeout=20s",
        ) as connection:
            cursor = connection.execute(sql, params or None)
            return list(cursor.fetchall()) if cursor.description else []

    def tables(self) -> set[str]:
        listed = self.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        )
        return {name for (name,) in listed}

    def create_database(self, name: str) -> None:
        self.execute(f'CREATE DATABASE "{name}" OWNER {USER}', (), None)

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', (), None)

    def session_rows(self) -> list[Session]:
        rows = self.execute(
            "SELECT pid, usename, datname, state, query FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND usename != 'root' ORDER BY pid",
            database=None,
        )
        return [Session(*row) for row in rows]

    def _kill(self, session: int) -> None:
        self.execute("SELECT pg_terminate_backend(%s)", (session,), None)

    def _get_setting(self, name: str) -> None:
        """Return None, for "as it was": only our own changes stand in postgresql.auto.conf."""

    def _set_setting(self, name: str, value: Any) -> None:
        change = f"SET {name} = '{value}'" if value is not None else f"RESET {name}"
        self.execute(f"ALTER SYSTEM {change}", (), None)
        self._reload()

    def _reload(self) -> None:
        """Reload the settings, and wait until new sessions use them."""
        load_time = "SELECT pg_conf_load_time()"
        before = self.execute(load_time, (), None)
        self.execute("SELECT pg_reload_conf()", (), None)
        eventually(lambda: self.execute(load_time, (), None) != before, what="settings are read")
