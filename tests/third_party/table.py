"""The table of packages and faults: each cell says what a run shows for a fault."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lab.pgbouncer import PgBouncer
from lab.processes import child_environment
from lab.servers import Server
from lab.waiting import eventually
from tests.third_party.packages import Package
from tests.third_party.worker import FAULTS, ONLY_WITH_DAEMONKIT

WORKS = "works"
NOT_OFFERED = "Django has none"
HANGS = "hangs"
ANSWER_TIMEOUT = 90.0
"""Seconds to wait for the answer of a process."""


def folder_of(package: Package) -> Path:
    """Return where ``make test`` installs the package's lock file."""
    return Path(sys.prefix) / "third_party" / package.folder


def why_missing(package: Package) -> str | None:
    if not folder_of(package).is_dir():
        return f"{package.name} is not installed: `make test` does that."
    return PgBouncer.why_missing() if package.server == "pgbouncer" else None


def versions_of(package: Package) -> str:
    """Return "django-tenants 4.0.1" for each distribution of the package."""
    paths = [str(folder_of(package)), *sys.path]
    found = []
    for name in package.distributions:
        distribution = next(iter(importlib.metadata.distributions(name=name, path=paths)))
        found.append(f"{name} {distribution.version}")
    return ", ".join(found)


class Row:
    """One package on its server, with daemonkit or with Django alone: a cell for each fault."""

    def __init__(self, package: Package, server: Server, *, with_daemonkit: bool) -> None:
        self.package, self.server = package, server
        self.with_daemonkit = with_daemonkit
        self._stack = contextlib.ExitStack()
        self._process: Process | None = None

    def __enter__(self) -> Row:
        self._database = self._stack.enter_context(self._prepared())
        self._stack.callback(self._end_process)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[dict[str, Any]]:
        """Make the tables, and yield the alias's entry in DATABASES."""
        package = self.package
        entry: dict[str, Any] = {
            "ENGINE": package.engine,
            "CONN_MAX_AGE": package.max_age,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": package.options,
            **package.entry,
        }
        schemas = {table.partition(".")[0] for table in package.tables if "." in table}
        for schema in schemas - {"public"}:
            self.server.execute(f"CREATE SCHEMA {schema} AUTHORIZATION daemonkit")
            self.server.execute(f"CREATE TABLE {schema}.entry (LIKE public.entry INCLUDING ALL)")
            self.server.execute(f"ALTER TABLE {schema}.entry OWNER TO daemonkit")
        try:
            if package.server == "pgbouncer":
                with PgBouncer(self.server) as bouncer:  # type: ignore[arg-type]
                    yield self.server.settings(port=bouncer.port, **entry)
            else:
                yield self.server.settings(**entry)
        finally:
            for schema in schemas - {"public"}:
                self.server.execute(f"DROP SCHEMA {schema} CASCADE")

    def cell(self, fault: str) -> str:
        """Let a fault happen, and say how it ended: "works", or what is wrong."""
        if fault in ONLY_WITH_DAEMONKIT and not self.with_daemonkit:
            return NOT_OFFERED
        troubles = list(dict.fromkeys(self._troubles(fault)))
        if troubles:
            self._end_process()  # the next fault shall not suffer from this one
        return "; ".join(troubles) or WORKS

    def _troubles(self, fault: str) -> list[str]:
        for table in self.package.tables:
            self.server.execute(f"DELETE FROM {table}")
        if self._process is None:
            self._process = Process(self.package, self._database, self.with_daemonkit)
        facts = self._process.meet(fault, self.server)
        if facts is None:
            return [HANGS]
        return [*facts["troubles"], *self._wrong_rows(facts["rows"]), *self._sessions_left()]

    def _wrong_rows(self, expected: list[str]) -> Iterator[str]:
        right, *others = self.package.tables
        found = self._notes(right)
        if any(self._notes(table) for table in others):
            yield "rows are in the wrong schema"
        elif set(expected) - set(found):
            yield "rows are lost"
        if set(found) - set(expected):
            yield "rows are kept that were undone"
        elif len(found) > len(expected):
            yield "rows are there twice"

    def _notes(self, table: str) -> list[str]:
        return [str(note) for (note,) in self.server.execute(f"SELECT note FROM {table}")]

    def _sessions_left(self) -> Iterator[str]:
        """A statement that was cut goes on at the server; its session is no worker's any more."""

        def held() -> int:
            rows = self.server.session_rows()
            return sum("SLEEP(30)" not in (row.query or "").upper() for row in rows)

        try:
            eventually(lambda: held() <= self.package.idle_sessions, within=2)
        except AssertionError:
            yield "sessions are left over"

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None
        self.server.kill_sessions()


class Process:
    """The process of ``worker.py``, and the conversation with it."""

    def __init__(self, package: Package, database: dict[str, Any], with_daemonkit: bool) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  end() closes it
        told = {"package": package.name, "database": database, "daemonkit": with_daemonkit}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.third_party.worker", json.dumps(told)],
            env=child_environment({"PYTHONPATH": f"{folder_of(package)}:{Path.cwd()}"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )

    def meet(self, fault: str, server: Server) -> dict[str, Any] | None:
        """Return the outcome of a fault; None if the process was killed because it hung."""
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            self._process.kill()

        timer = threading.Timer(ANSWER_TIMEOUT, give_up)
        timer.start()
        try:
            self._say(fault)
            while (answer := self._hear()) == "kill":
                server.kill_sessions()
                self._say("killed")
        finally:
            timer.cancel()
        if answer is None and not hung.is_set():
            return {"rows": [], "troubles": [f"the process dies ({self._last_words()})"]}
        return answer  # type: ignore[no-any-return]

    def _say(self, word: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            stdin: IO[str] = self._process.stdin  # type: ignore[assignment]
            stdin.write(json.dumps(word) + "\n")
            stdin.flush()

    def _hear(self) -> Any:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        return json.loads(line) if line else None

    def _last_words(self) -> str:
        self._log.seek(0)
        return (self._log.read().decode().splitlines() or [""])[-1]

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._log.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def cells(package: Package, server: Server, *, with_daemonkit: bool) -> dict[str, str]:
    """Return the outcome of each fault."""
    with Row(package, server, with_daemonkit=with_daemonkit) as row:
        return {fault: row.cell(fault) for fault in FAULTS}
