"""Private servers: started once in a test session, and reset after each test that used them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from lab.machines import Machine, build_wheel, install_project
from lab.processes import ROOT
from lab.proxy import Proxy
from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually

MakeProxy: TypeAlias = Callable[..., Proxy]


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
    """A machine with a real systemd, and daemonkit installed in /srv/shop/venv."""
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
    """Reset the servers that a test used. It is autouse, so it ends after all other fixtures."""
    used: list[Server] = []
    yield used
    leftovers = [complaint for server in used if (complaint := tidy(server))]
    if leftovers and not request.node.get_closest_marker("leaves_sessions"):
        pytest.fail("\n".join(leftovers), pytrace=False)


def prepare(server: Server, used: list[Server]) -> Server:
    """Prepare a server for a test: running, not frozen, with an empty table ``entry`` and no
    other, reset afterwards."""
    if server not in used:
        used.append(server)
        server.thaw()
        server.start()
        server.clear()
    return server


def tidy(server: Server) -> str | None:
    """Reset a server to its usual state. Return a text that lists the sessions a test has left."""
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
    """Return ``proxy(server)``: a proxy in front of the server, closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(server: Server) -> Proxy:
            return stack.enter_context(Proxy(("127.0.0.1", server.port)))

        yield make
