"""``frozen_server()``: a server that keeps its connections and does not answer."""

from __future__ import annotations

import pytest

from daemonkit.testing import frozen_server
from daemonkit.testing.freezing import server_pid
from lab.servers import MariaDB, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import notes


def is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("through", ["socket", "port"])
def test_the_servers_process_stands_still_and_goes_on(
    alias: MakeAlias, server: Server, through: str
) -> None:
    name = alias(server, port=server.port) if through == "port" else alias(server)
    with frozen_server(name) as pid:
        eventually(lambda: is_stopped(pid))
    eventually(lambda: not is_stopped(pid))
    assert notes(server) == []


def test_every_session_of_postgresql_stands_still(alias: MakeAlias, postgres: Server) -> None:
    name = alias(postgres)
    with frozen_server(name, timeout=0.2):
        postgres.execute("SELECT 1")  # answered when the time is over
    assert server_pid(name)


def test_it_goes_on_after_a_test_that_failed(alias: MakeAlias, mariadb: MariaDB) -> None:
    name = alias(mariadb)
    with pytest.raises(ValueError, match="mine"), frozen_server(name):
        raise ValueError("mine")
    assert notes(mariadb) == []


def test_sqlite_has_no_server(alias: MakeAlias) -> None:
    with pytest.raises(RuntimeError, match="SQLite has no server"), frozen_server(alias(None)):
        pass
