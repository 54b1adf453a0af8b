"""The processes that are measured, and the servers that they are measured on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.servers import MariaDB, PostgreSQL, Server
from lab.servers.base import is_installed

ROOT = Path(__file__).resolve().parent.parent

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


class Contestant:
    """A management command in a process of its own: ``bare_...`` ones without daemonkit."""

    def __init__(self, *command: str, database: Mapping[str, Any]) -> None:
        sites = (site for site in ("kept", "stored") if any(site in word for word in command))
        site = next(sites, "bare")
        self.process = subprocess.Popen(
            # No checks: on MySQL they connect, and somebody may be killing sessions just then.
            [sys.executable, "-m", "django", *command, "--skip-checks"],
            env=environment(
                DJANGO_SETTINGS_MODULE=f"benchmarks.{site}.settings",
                BENCHMARK_DATABASE=json.dumps(database),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self, what: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, **what: Any) -> Any:
        self.tell(what)
        return self.hear()


@contextlib.contextmanager
def contest(
    commands: Mapping[str, tuple[str, ...]], database: Mapping[str, Any]
) -> Iterator[dict[str, Contestant]]:
    """Several contestants, by name, all of which have started."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(Contestant(*command, database=database))
            for name, command in commands.items()
        }


def environment(**changes: str) -> dict[str, str]:
    """A child's environment, in which Python keeps its compiled files, as everywhere in earnest."""
    inherited = {
        name: value for name, value in os.environ.items()
        if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "NOTIFY_SOCKET", "WATCHDOG_USEC")
    }  # fmt: skip
    return {**inherited, "PYTHONPATH": str(ROOT), **changes}
