"""A private MariaDB."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import signal
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from lab.servers.base import DATABASE, PASSWORD, USER, Server, Session, find_binary, is_installed


def default_driver() -> str:
    return "MySQLdb" if is_installed("MySQLdb") else "pymysql"


class MariaDB(Server):
    """A private MariaDB, without name resolution and without flushing to disk."""

    vendor = "mysql"
    scheme = "mysql"
    stop_signal = signal.SIGTERM
    system_user = "mysql"
    options: ClassVar[dict[str, Any]] = {"charset": "utf8mb4"}

    def __init__(self) -> None:
        super().__init__()
        self.data = self.folder / "data"

    @classmethod
    def binary(cls) -> str | None:
        return find_binary("mariadbd", "/usr/sbin/mariadbd", "/usr/libexec/mariadbd")

    @classmethod
    def why_missing(cls) -> str | None:
        if not (
            find_binary("mariadbd", "/usr/sbin/mariadbd") and shutil.which("mariadb-install-db")
        ):
            return "MariaDB is not installed (Debian: mariadb-server)."
        if not (is_installed("MySQLdb") or is_installed("pymysql")):
            return "No driver for MariaDB is installed (mysqlclient, or PyMySQL)."
        return None

    @property
    def socket_host(self) -> str:
        return str(self.folder / "sock")

    @property
    def socket_port(self) -> str:
        return ""

    @property
    def _tmpdir(self) -> str:
        """Not the one of the system: each server that starts removes what others have in there."""
        return f"--tmpdir={self.folder}"

    def install_command(self) -> list[str]:
        return [
            shutil.which("mariadb-install-db") or "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self.data}",
            self._tmpdir,
            "--skip-test-db",
            "--skip-name-resolve",
            "--auth-root-authentication-method=normal",
            "--innodb-log-file-size=8M",
            "--innodb-flush-method=nosync",
        ]

    def command(self) -> list[str]:
        return [
            self.binary() or "mariadbd",
            "--no-defaults",
            f"--datadir={self.data}",
            self._tmpdir,
            f"--socket={self.socket_host}",
            f"--pid-file={self.folder / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=8M",
            f"--innodb-flush-log-at-trx-commit={1 if self.is_durable else 2}",
            "--innodb-lock-wait-timeout=10",
            "--key-buffer-size=1M",
            "--aria-pagecache-buffer-size=1M",
            "--table-open-cache=200",
        ]

    def prepare(self) -> None:
        # An anonymous user at localhost would be matched before ours at '%'.
        self.execute(
            "DELETE FROM mysql.global_priv WHERE user = '' OR host != 'localhost'", database=None
        )
        self.execute("FLUSH PRIVILEGES", (), None)
        self.execute(f"CREATE USER {USER}@'%%' IDENTIFIED BY %s", (PASSWORD,), None)
        self.execute(f"GRANT ALL ON `test\\_%`.* TO {USER}@'%'", (), None)
        self.create_database(DATABASE)
        self.execute("CREATE TABLE entry (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(200))")

    def clear(self) -> None:
        if others := ", ".join(self.tables() - {"entry"}):
            self.execute(f"SET STATEMENT foreign_key_checks = 0 FOR DROP TABLE {others}")
        self.execute("TRUNCATE TABLE entry")

    def set_idle_timeout(self, seconds: int | None) -> None:
        """Set both timeouts; MariaDB applies them only to new sessions."""
        for name in ("wait_timeout", "interactive_timeout"):
            self.configure(name, 28800 if seconds is None else seconds)

    def connect(
        self,
        *,
        socket: bool = True,
        port: int | None = None,
        driver: str | None = None,
        **options: Any,
    ) -> Any:
        """Return a bare connection in autocommit mode, of ``MySQLdb`` or ``pymysql``."""
        where: dict[str, Any] = {"host": "127.0.0.1", "port": port or self.port}
        if port is None and socket:
            where = {"unix_socket": self.socket_host}
        login = {"user": USER, "password": PASSWORD, "database": DATABASE, "autocommit": True}
        return importlib.import_module(driver or default_driver()).connect(
            **{**where, **login, **options}
        )

    def execute(
        self, sql: str, params: Sequence[Any] = (), database: str | None = DATABASE
    ) -> list[tuple[Any, ...]]:
        with self._admin(database) as connection, contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(sql, params or None)
            return list(cursor.fetchall()) if cursor.description else []

    @contextlib.contextmanager
    def _admin(self, database: str | None) -> Iterator[Any]:
        options: dict[str, Any] = {"database": database} if database else {}
        driver = importlib.import_module(default_driver())
        connection = driver.connect(
            user="root",
            unix_socket=self.socket_host,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=5,
            read_timeout=20,
            init_command="SET lock_wait_timeout = 10",
            **options,
        )
        with contextlib.closing(connection):
            yield connection

    def tables(self) -> set[str]:
        listed = self.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
        )
        return {name for (name,) in listed}

    def create_database(self, name: str) -> None:
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4", (), None)
        self.execute(f"GRANT ALL ON `{name}`.* TO {USER}@'%'", (), None)

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS `{name}`", (), None)

    def session_rows(self) -> list[Session]:
        rows = self.execute(
            "SELECT id, user, db, CONCAT_WS(', ', command, NULLIF(state, '')), info"
            " FROM information_schema.processlist WHERE command != 'Daemon'"
            " AND user NOT IN ('root', 'system user', 'event_scheduler', 'unauthenticated user')"
            " ORDER BY id",
            database=None,
        )
        return [Session(*row) for row in rows]

    def _kill(self, session: int) -> None:
        with contextlib.suppress(Exception):  # 1094: it has ended by itself
            self.execute(f"KILL CONNECTION {session:d}", database=None)

    def _get_setting(self, name: str) -> Any:
        return self.execute(f"SELECT @@GLOBAL.{name}", database=None)[0][0]

    def _set_setting(self, name: str, value: Any) -> None:
        self.execute(f"SET GLOBAL {name} = %s", (value,), None)
