"""A private pgbouncer in transaction mode, in front of a private PostgreSQL."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from types import TracebackType

from lab.servers import DATABASE, PASSWORD, USER, PostgreSQL
from lab.servers.base import find_binary, free_port, temporary_folder, unprivileged_user
from lab.waiting import eventually

SESSIONS = 2


class PgBouncer:
    """One process that lends ``SESSIONS`` sessions of the server to any number of clients."""

    def __init__(self, server: PostgreSQL) -> None:
        self.server = server
        self.port = free_port()
        self.folder = temporary_folder()
        self._user = unprivileged_user("postgres")  # pgbouncer refuses to run as root
        if self._user:
            shutil.chown(self.folder, self._user)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def binary(cls) -> str | None:
        return find_binary("pgbouncer", "/usr/sbin/pgbouncer")

    @classmethod
    def why_missing(cls) -> str | None:
        return None if cls.binary() else "pgbouncer is not installed (Debian: pgbouncer)."

    def __enter__(self) -> PgBouncer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        login = f"host={self.server.socket_host} port={self.server.port}"
        login += f" user={USER} password={PASSWORD}"
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n{DATABASE} = {login}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {SESSIONS}\n"
            "ignore_startup_parameters = extra_float_digits\nserver_login_retry = 0.1\n"
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binary() or "pgbouncer", "-q", str(self.folder / "pgbouncer.ini")],
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._accepts, 20, "pgbouncer accepts connections")

    def remove(self) -> None:
        """End it and remove its folder. Its sessions on the server end with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accepts(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"pgbouncer ended:\n{(self.folder / 'log').read_text()}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False
