"""What both servers have in common: a process, its folder, its life and its sessions.

Each lives in a temporary folder with a socket and a TCP port of its own, and ends
with this process. Tests connect as the ordinary user of ``settings()``: a superuser may exceed
``max_connections``, and may write to a read-only server.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import importlib
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import psutil

from lab.processes import is_alive, is_stopped
from lab.waiting import eventually

USER = "daemonkit"
PASSWORD = "only-for-tests"
DATABASE = "daemonkit"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


class Session(NamedTuple):
    """One line of the server's process list."""

    id: int
    user: str | None
    database: str | None
    state: str | None
    query: str | None


def is_installed(module: str) -> bool:
    """Return whether a driver can be imported: it may be there without its C library."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def find_binary(name: str, *patterns: str) -> str | None:
    """Return the path of a program from PATH, else the newest that matches one of ``patterns``."""
    if found := shutil.which(name):
        return found
    matches = [path for pattern in patterns for path in glob.glob(pattern)]  # noqa: PTH207
    return max(matches, key=_version, default=None)


def _version(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


def free_port() -> int:
    """Return a free port below the range of outgoing connections.

    A port inside that range may be taken by any client while the server is down, and a client
    that connects to it then can even meet itself (TCP's simultaneous open).
    """
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port found")


def unprivileged_user(*candidates: str) -> str | None:
    """Return the user to run a server as: the first that exists, or None where we are not root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (*candidates, "nobody") if name in known)


def temporary_folder() -> Path:
    """Make a folder with a short path: a socket's path may have no more than 107 characters."""
    short = None if len(tempfile.gettempdir()) < 40 else "/tmp"
    return Path(tempfile.mkdtemp(prefix="dk-", dir=short))


class Server(ABC):
    """What both servers have in common: one process, its folder, its life and its sessions."""

    vendor: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    is_durable = False
    """Whether a commit is on the disk when it is answered, as in every server's default. Tests do
    without; what is measured does not."""

    def __init__(self) -> None:
        self.folder = temporary_folder()
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False
        self._user = unprivileged_user(self.system_user)
        self._is_prepared = False
        self._changed: dict[str, Any] = {}
        if self._user:
            shutil.chown(self.folder, self._user)
        atexit.register(self.remove)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on port {self.port}>"

    # Life

    def start(self) -> None:
        """Start the server, or start it again, and wait until it answers."""
        if self.is_running:
            return
        if not self.data.exists():
            self._run_once(self.install_command())
        self.process = self._spawn(self.command())
        eventually(self._answers, START_TIMEOUT, f"{self!r} answers")
        if not self._is_prepared:
            self.prepare()
            self._is_prepared = True

    def stop(self) -> None:
        """Stop the server cleanly; sessions are closed by it."""
        if self.process is None:
            return
        self.thaw()
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash or a power cut would."""
        if self.process is None:
            return
        family = self._family()
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait(STOP_TIMEOUT)
        eventually(lambda: not any(map(is_alive, family)), what=f"{self!r} is gone")
        self.process, self.is_frozen = None, False

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Freeze the server: the kernel still accepts data, but the server does not answer."""
        self.is_frozen = True
        eventually(self._stop_all, what=f"{self!r} is frozen")

    def _stop_all(self) -> bool:
        """Stop all running processes. Return whether none was left: one may fork meanwhile."""
        running = []
        for member in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if not is_stopped(member):
                    running.append(member)
                    member.send_signal(signal.SIGSTOP)
        return not running

    def thaw(self) -> None:
        if self.is_frozen:
            self._signal_all(signal.SIGCONT)
            self.is_frozen = False

    def remove(self) -> None:
        """End the server and remove its folder; for the end of the test session."""
        atexit.unregister(self.remove)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    # Sessions

    def sessions(self) -> set[int]:
        """Return the ids of the sessions of clients: not ours, and not the server's own."""
        return {row.id for row in self.session_rows()}

    def kill_session(self, session: int) -> None:
        """End one session, as the server's administrator would, and wait until it is gone."""
        self._kill(session)
        eventually(lambda: session not in self.sessions(), what=f"session {session} is gone")

    def kill_sessions(self) -> set[int]:
        """End all sessions of clients, and return their ids."""
        killed = self.sessions()
        for session in killed:
            self._kill(session)
        eventually(lambda: not killed & self.sessions(), what=f"sessions {killed} are gone")
        return killed

    # Settings

    def configure(self, name: str, value: Any) -> None:
        """Change a setting of the running server until ``reset()``, which each test ends with."""
        before = self._get_setting(name)
        self._set_setting(name, value)
        self._changed.setdefault(name, before)

    def reset(self) -> None:
        for name, before in self._changed.items():
            self._set_setting(name, before)
        self._changed.clear()

    @abstractmethod
    def set_idle_timeout(self, seconds: int | None) -> None:
        """Let the server close idle sessions after ``seconds``; None: its default again."""

    def settings(
        self,
        *,
        socket: bool = True,
        name: str = DATABASE,
        port: int | None = None,
        **overrides: Any,
    ) -> dict[str, Any]:
        """Return an entry for Django's DATABASES; ``port`` (a proxy's) implies TCP.

        ``OPTIONS`` are merged with the ones that are needed anyway.
        """
        use_tcp = port is not None or not socket
        entry: dict[str, Any] = {
            "ENGINE": f"django.db.backends.{self.vendor}",
            "NAME": name,
            "USER": USER,
            "PASSWORD": PASSWORD,
            "HOST": "127.0.0.1" if use_tcp else self.socket_host,
            "PORT": str((port or self.port) if use_tcp else self.socket_port),
        }
        entry.update(overrides)
        entry["OPTIONS"] = {**self.options, **overrides.get("OPTIONS", {})}
        return entry

    @property
    def url(self) -> str:
        """The DATABASE_URL of the server's TCP port."""
        return self.url_through(self.port)

    def url_through(self, port: int, name: str = DATABASE) -> str:
        """Return the DATABASE_URL by way of another port, a proxy's."""
        return f"{self.scheme}://{USER}:{PASSWORD}@127.0.0.1:{port}/{name}"

    # What differs

    data: Path
    system_user: ClassVar[str]
    scheme: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    @classmethod
    @abstractmethod
    def why_missing(cls) -> str | None:
        """Say in a sentence what is not installed; None where the server can be started."""

    @property
    @abstractmethod
    def socket_host(self) -> str: ...

    @property
    @abstractmethod
    def socket_port(self) -> int | str: ...

    @abstractmethod
    def install_command(self) -> list[str]: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def prepare(self) -> None:
        """Make the user, the database and its one table ``entry``."""

    @abstractmethod
    def clear(self) -> None:
        """Empty the table ``entry``, start its ids at 1 again, and drop all other tables.

        Where an earlier test has migrated, a daemon writes its status on a session that it holds.
        """

    @abstractmethod
    def connect(self, *, socket: bool = True, port: int | None = None, **options: Any) -> Any:
        """Return a bare connection of the driver, as the ordinary user."""

    @abstractmethod
    def execute(
        self, sql: str, params: Sequence[Any] = (), database: str | None = DATABASE
    ) -> list[tuple[Any, ...]]:
        """Run one statement as the administrator, committed, on a connection made for it."""

    @abstractmethod
    def tables(self) -> set[str]:
        """The names of the tables of the usual database."""

    @abstractmethod
    def create_database(self, name: str) -> None: ...

    @abstractmethod
    def drop_database(self, name: str) -> None: ...

    @abstractmethod
    def session_rows(self) -> list[Session]: ...

    @abstractmethod
    def _kill(self, session: int) -> None: ...

    @abstractmethod
    def _get_setting(self, name: str) -> Any: ...

    @abstractmethod
    def _set_setting(self, name: str, value: Any) -> None: ...

    # Processes

    def _run_once(self, command: list[str]) -> None:
        done = subprocess.run(
            command, user=self._user, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start the server in a session of its own, so that Ctrl-C does not reach it.

        ``setpriv`` ends it even if this process is killed. It binds the server to the thread that
        forks, so a server that another thread starts does without.
        """
        if (setpriv := shutil.which("setpriv")) and _is_main_thread():
            command = [setpriv, "--pdeathsig", "SIGKILL", *command]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def _answers(self) -> bool:
        if not self.is_running:
            self.process = None
            raise RuntimeError(f"{self!r} ended:\n{self.log.read_text()[-3000:]}")
        with contextlib.suppress(Exception):  # every driver has its own word for "not yet"
            return self.execute("SELECT 1", database=None) == [(1,)]
        return False

    def _family(self) -> list[psutil.Process]:
        """Return the server and its children, the server first: it must not fork meanwhile."""
        try:
            parent = psutil.Process(self.process.pid if self.process else -1)
            return [parent, *parent.children(recursive=True)]
        except (psutil.NoSuchProcess, ValueError):
            return []

    def _signal_all(self, signum: signal.Signals) -> None:
        for member in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signum)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
