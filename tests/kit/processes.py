"""Fixtures that start ``manage.py`` as a process: of the sample site, or of tests/lives."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from lab.processes import MANAGE_PY, ROOT, Daemon, manage_command
from lab.servers import Server
from lab.waiting import eventually

LIVES = ROOT / "tests" / "lives" / "manage.py"

Manage: TypeAlias = Callable[..., Daemon]
Live: TypeAlias = Callable[..., Daemon]


@pytest.fixture
def manage(tmp_path: Path) -> Iterator[Manage]:
    """Return ``manage("run_daemon", "NAME", ..., env={}, manage_py=..., cwd=...)``.

    The process uses a SQLite database of this test, unless ``env`` has a DATABASE_URL. After the
    test its whole group is ended. The test fails if children have outlived their parent.
    """
    started: list[Daemon] = []

    def start(
        *arguments: str,
        env: dict[str, str | None] | None = None,
        manage_py: Path | str = MANAGE_PY,
        cwd: Path | str | None = None,
    ) -> Daemon:
        database: dict[str, str | None] = {"DATABASE_URL": f"sqlite:///{tmp_path / 'site.sqlite3'}"}
        command = manage_command(*arguments, manage_py=manage_py)
        started.append(Daemon(command, env=database | (env or {}), cwd=cwd))
        return started[-1]

    yield start
    orphans = [orphan for daemon in started for orphan in daemon.end()]
    assert not orphans, f"processes outlived their parent: {orphans}"


def migrate(manage: Manage, server: Server) -> None:
    """Create the tables of tests/lives on a server, as ``manage.py migrate`` does."""
    migrated = manage("migrate", "-v", "0", manage_py=LIVES, env={"DATABASE_URL": server.url})
    assert migrated.wait(60) == 0, migrated.output


@pytest.fixture
def live(manage: Manage) -> Live:
    """Return ``live("slow", "--seconds", "2", on=server)``: a daemon of tests/lives.

    ``on`` is a server or a database URL; without it the daemon uses ``manage``'s SQLite file.
    """

    def start(*arguments: str, on: Server | str | None = None, **env: str | None) -> Daemon:
        url = on.url if isinstance(on, Server) else on
        database = {"DATABASE_URL": url} if url else {}
        return manage("run_daemon", *arguments, manage_py=LIVES, env={**database, **env})

    return start


def signal_until_forced(daemon: Daemon) -> None:
    """Repeat SIGTERM until the daemon takes it for a second signal, not for a copy of the first."""

    def forced() -> bool:
        if daemon.is_running:
            daemon.signal(signal.SIGTERM)
        return "forced to end" in daemon.so_far or not daemon.is_running

    eventually(forced, every=0.1)


def signal_until_ended(daemon: Daemon, within: float = 20.0) -> None:
    """Send SIGTERM to a daemon's group every 15 ms until it has ended."""

    def has_ended() -> bool:
        if daemon.is_running:
            daemon.signal_group(signal.SIGTERM)
        return not daemon.is_running

    eventually(has_ended, within=within, every=0.015)
