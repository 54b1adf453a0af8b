"""Fixtures: real servers, database aliases made for one test, and real processes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from pytest_django.plugin import DjangoDbBlocker

from lab.machines import Machine, build_wheel, install_project
from lab.processes import MANAGE_PY, ROOT, Daemon, manage_command
from lab.proxy import Proxy
from lab.servers import MariaDB, PostgreSQL, Server
from lab.servers.base import is_installed
from lab.waiting import eventually

IS_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

MakeAlias: TypeAlias = Callable[..., str]
MakeProxy: TypeAlias = Callable[..., Proxy]
Manage: TypeAlias = Callable[..., Daemon]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "leaves_sessions: this test may leave sessions on its server, which are killed"
    )


# With CI=true a skip is a failure: nothing may go untested unseen.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return refuse_skip(report) if not hasattr(report, "wasxfail") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return refuse_skip(report)


def refuse_skip(report: Report) -> Report:
    if IS_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure with CI=true: {report.longrepr}"
    return report


# Servers


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    yield from serving(MariaDB)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    yield from serving(PostgreSQL)


def serving(kind: type[Server]) -> Iterator[Server]:
    """Start a server for the whole session, when the first test asks for it."""
    if reason := kind.why_missing():
        pytest.skip(reason)
    server = kind()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a real systemd, and in /srv/shop/venv what ``pip install`` would put there."""
    if reason := Machine.why_missing():
        pytest.skip(reason)
    machine = Machine(build_wheel(ROOT, tmp_path_factory.mktemp("wheel")))
    try:
        machine.start()
        install_project(machine, "/srv/shop")
        yield machine
    finally:
        machine.remove()


@pytest.fixture(autouse=True)
def used_servers(request: pytest.FixtureRequest) -> Iterator[list[Server]]:
    """Tidy the servers a test used, after all its other fixtures have ended: so it is autouse."""
    used: list[Server] = []
    yield used
    leftovers = [complaint for server in used if (complaint := tidy(server))]
    if leftovers and not request.node.get_closest_marker("leaves_sessions"):
        pytest.fail("\n".join(leftovers), pytrace=False)


def prepare(server: Server, used: list[Server]) -> Server:
    """Hand a server to a test: running, thawed, with an empty table, to be tidied afterwards."""
    if server not in used:
        used.append(server)
        server.thaw()
        server.start()
        server.clear()
    return server


def tidy(server: Server) -> str | None:
    """Bring a server back to how tests expect it; say which sessions a test left, if any."""
    server.thaw()
    server.start()
    server.reset()
    with contextlib.suppress(AssertionError):
        eventually(lambda: not server.sessions(), within=2)
        return None
    left = "\n".join(f"  {row}" for row in server.session_rows())
    server.kill_sessions()
    return f"sessions left on {server!r}:\n{left}"


@pytest.fixture
def mariadb(mariadb_server: MariaDB, used_servers: list[Server]) -> Server:
    return prepare(mariadb_server, used_servers)


@pytest.fixture
def postgres(postgres_server: PostgreSQL, used_servers: list[Server]) -> Server:
    return prepare(postgres_server, used_servers)


@pytest.fixture(params=["mariadb", "postgres"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each server in turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def proxy() -> Iterator[MakeProxy]:
    """Return ``proxy(server)``: a proxy before the server's socket, closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(server: Server) -> Proxy:
            return stack.enter_context(Proxy(("127.0.0.1", server.port)))

        yield make


# Django's aliases


@pytest.fixture
def alias(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[MakeAlias]:
    """Return ``alias(server, name="probe", **settings)``: a new alias of this process.

    ``server`` None stands for a SQLite file. Settings are those of DATABASES (CONN_MAX_AGE,
    OPTIONS...), ``port`` (a proxy's) or ``socket``. Queries are allowed without ``django_db``.
    """
    made: list[str] = []

    def make(server: Server | None, name: str = "probe", **settings: Any) -> str:
        if isinstance(server, MariaDB) and not is_installed("MySQLdb"):
            pytest.skip("mysqlclient, Django's driver for MariaDB, is not installed.")
        entry = server.settings(**settings) if server else sqlite_settings(tmp_path, name, settings)
        connections.settings[name] = with_defaults(entry)
        made.append(name)
        return name

    with django_db_blocker.unblock():
        try:
            yield make
        finally:
            for name in made:
                forget(name)


def sqlite_settings(folder: Path, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    path = folder / f"{name}.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, note TEXT)")
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), **settings}


def with_defaults(entry: dict[str, Any]) -> dict[str, Any]:
    """Fill in what Django fills in at start-up, by Django itself."""
    filled = connections.configure_settings({DEFAULT_DB_ALIAS: entry})
    return dict(filled[DEFAULT_DB_ALIAS])


def forget(name: str) -> None:
    """Close an alias in this thread, its pool as well, however the test left it."""
    wrapper = connections[name]
    with contextlib.suppress(Exception):
        wrapper.close()
    raw, wrapper.connection = wrapper.connection, None
    if raw is not None:
        with contextlib.suppress(Exception):
            raw.close()
    if close_pool := getattr(wrapper, "close_pool", None):
        close_pool()
    del connections[name]
    connections.settings.pop(name, None)


# Processes


@pytest.fixture
def manage(tmp_path: Path) -> Iterator[Manage]:
    """Return ``manage("run_daemon", "NAME", ..., env={}, manage_py=..., cwd=...)``.

    A process on a SQLite database of the test's own, unless ``env`` gives a DATABASE_URL. Ended
    after the test with all of its group; children that outlived their parent fail the test.
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
