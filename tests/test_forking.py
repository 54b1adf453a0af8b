"""Forks, with real servers. Each parent is a separate process, ``tests/kit/forks.py``."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.processes import ROOT, child_environment, is_alive
from lab.servers import DATABASE, PASSWORD, USER, MariaDB, Server
from lab.servers.base import is_installed
from lab.waiting import eventually
from tests.kit.processes import LIVES, Manage

DRIVERS = ("mysqlclient", "PyMySQL", "psycopg", "psycopg pool")
ENDINGS = {"os._exit": 0, "sys.exit": 0, "exception": 1, "SIGKILL": -signal.SIGKILL}
DEEDS = {
    "os._exit": ["nothing", "close", "close_all", "close_old", "forget", "collect", "close_raw"],
    "sys.exit": ["nothing", "close_old", "forget", "close_raw"],
    "exception": ["nothing", "collect"],
    "SIGKILL": ["nothing", "close"],
}
"""How a child ends, which decides what happens to its parent's connections. A normal end of the
interpreter takes long, and does the same to connections."""
UNWINDING = ("sys.exit", "exception", "goes on")
CODES = {**ENDINGS, "goes on": 0}


class Parent:
    """The process that forks. It answers requests one after the other."""

    def __init__(self, complaints: Path, env: dict[str, str], forks: dict[str, Any]) -> None:
        self.complaints = complaints
        with complaints.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.kit.forks"],
                env=child_environment({"FORKS": json.dumps(forks, default=str), **env}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                text=True,
                start_new_session=True,
            )

    def ask(self, case: str, *, says: str = "", **arguments: Any) -> Any:
        """Run a case and return its result. Any output on stderr, also a child's, is a failure."""
        assert self.process.stdin
        assert self.process.stdout
        before = self.complaints.stat().st_size
        self.process.stdin.write(json.dumps({"case": case, **arguments}) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], 20)[0]:
            self.end()
            raise AssertionError(f"no answer within 20 s: {self.complaints.read_text()[before:]}")
        line = self.process.stdout.readline()
        complaints = self.complaints.read_text()[before:]
        assert line, f"the parent has ended: {complaints}"
        answer = json.loads(line)
        assert "trouble" not in answer, answer["trouble"]
        assert says in complaints
        assert bool(says) == bool(complaints), complaints
        return answer

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


Parents = Callable[..., Parent]
Family = Callable[..., Parent]


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parents]:
    """Return ``parents(default, ...)``: a parent, shared by all tests with the same arguments."""
    made: dict[str, Parent] = {}

    def make(default: dict[str, Any], env: dict[str, str] | None = None, **forks: Any) -> Parent:
        forks["databases"] = {"default": default}
        key = json.dumps([env, forks], default=str)
        if key not in made or made[key].process.poll() is not None:
            complaints = tmp_path_factory.mktemp("parent") / "stderr"
            made[key] = Parent(complaints, env or {}, forks)
        return made[key]

    yield make
    for parent in made.values():
        parent.end()


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server_used(driver: str, request: pytest.FixtureRequest) -> Server:
    """The server behind the driver."""
    server: Server = request.getfixturevalue("postgres" if "psycopg" in driver else "mariadb")
    if driver == "mysqlclient" and not is_installed("MySQLdb"):
        pytest.skip("mysqlclient is not installed.")
    return server


@pytest.fixture
def family(driver: str, server_used: Server, parents: Parents) -> Family:
    """Return ``family(CONN_MAX_AGE=None)``: a parent that uses a server through this driver."""

    def make(*, late: bool = False, **settings: Any) -> Parent:
        if driver == "psycopg pool":
            settings["OPTIONS"] = {"pool": {"min_size": 3, "max_size": 6}}
        return parents(server_used.settings(**settings), pymysql=driver == "PyMySQL", late=late)

    return make


# The table


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("driver", "age"),
    [(driver, 0) for driver in DRIVERS] + [(driver, None) for driver in DRIVERS[:-1]],
    indirect=["driver"],
)
def test_the_parents_session_outlives_its_child_whatever_the_child_does(
    family: Family, age: int | None, ending: str
) -> None:
    parent = family(CONN_MAX_AGE=age)
    for deed in DEEDS[ending]:
        facts = parent.ask("one_child", deed=deed, ending=ending)
        assert facts["after"] == facts["before"], deed
        assert facts["code"] == ENDINGS[ending], deed
        if deed != "nothing":
            own = facts["child"]
            assert own[0] == own[1] != facts["before"], deed


def test_sessions_of_the_parents_other_threads_outlive_the_childs_garbage_collection(
    family: Family,
) -> None:
    facts = family().ask("other_threads", ending="sys.exit")
    assert facts["is_under_way"]
    assert facts["shared"] == [[], []], "no socket of the parent's is open in a child"
    assert facts["sockets"] >= 5
    assert facts["afters"] == facts["befores"]
    assert len({*facts["befores"], *facts["children"]}) == 7
    assert facts["codes"] == [0, 0]


@pytest.mark.parametrize(
    ("ending", "depth"),
    [("sys.exit", 1), ("exception", 3), ("goes on", 1), ("goes on", 3), ("SIGKILL", 1)],
)
def test_a_fork_inside_atomic_leaves_the_transaction_to_the_parent(
    family: Family, server_used: Server, depth: int, ending: str
) -> None:
    facts = family().ask("inside_atomic", depth=depth, ending=ending, asks=True)
    own, in_a_block, rows = facts["reports"][0]
    assert facts["before"] == facts["in_between"] == facts["after"] != own
    assert facts["committed"]
    assert not in_a_block
    assert rows == 1, "the child sees what it wrote itself, and not what is not committed"
    assert facts["code"] == CODES[ending]
    assert {row[0] for row in server_used.execute("SELECT note FROM entry")} == {"parent", "child"}


@pytest.mark.parametrize(
    ("ending", "depth"), [("sys.exit", 3), ("exception", 1), ("goes on", 1), ("goes on", 3)]
)
def test_a_child_that_leaves_its_parents_atomic_sends_nothing_and_can_go_on(
    family: Family, depth: int, ending: str
) -> None:
    facts = family().ask("inside_atomic", depth=depth, ending=ending, asks=False)
    left = facts["reports"][1]
    assert not left["connected"]
    assert left["committed"] == [], "on_commit is the parent's"
    assert left["then"] == [True, True]
    assert facts["before"] == facts["after"]
    assert facts["code"] == CODES[ending]


def test_no_process_reads_a_row_that_another_process_queried(
    family: Family,
) -> None:
    facts = family(CONN_MAX_AGE=0).ask("tagged_rows", children=3, queries=200)
    assert facts["foreign"] == [[]] * 4
    assert facts["after"] == facts["before"]


def test_a_childs_session_outlives_its_own_child(family: Family) -> None:
    facts = family().ask("generations")
    own, grandchilds, code, then = facts["child"]
    assert len({facts["before"], own, grandchilds}) == 3
    assert (own, facts["before"], code) == (then, facts["after"], 0)


def test_a_cursor_or_connection_of_the_parent_does_not_work_in_the_child(
    family: Family,
) -> None:
    facts = family().ask("held_by_hand")
    raw, cursor, _, own = facts["child"]
    assert "Error" in raw
    assert "Error" in cursor
    assert facts["before"] == facts["after"] != own


@pytest.mark.parametrize("parent", ["is killed", "executes another program"])
def test_the_server_sees_a_session_end_even_if_its_process_has_living_children(
    family: Family, server_used: Server, parent: str
) -> None:
    facts = family().ask("ended", by=parent)
    try:
        eventually(lambda: facts["session"] not in server_used.sessions())
        assert is_alive(psutil.Process(facts["pids"][-1]))
    finally:
        for pid in facts["pids"]:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_file_that_got_the_descriptor_of_a_closed_connection_is_left_alone(
    family: Family, driver: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    facts = family().ask("reused_descriptor", path=str(tmp_path / "file"))
    assert facts["read"] == "mine"
    assert facts["reused"] or driver == "psycopg pool"


def test_connections_that_were_opened_before_the_guard_are_guarded(
    family: Family,
) -> None:
    facts = family(late=True).ask("installed_late")
    assert facts["afters"] == facts["befores"]
    own, times = facts["child"]
    assert own not in facts["befores"]
    assert times == 1, "installed three times, it acts once"


# Units of work


@pytest.mark.parametrize("ending", [*UNWINDING, "os._exit"])
def test_a_fork_inside_a_unit_of_work_gives_the_child_a_unit_of_its_own(
    family: Family, driver: str, ending: str
) -> None:
    parent = family(CONN_MAX_AGE=0 if driver == "psycopg pool" else 60)
    for asks in (True, False):
        # Any unit of work that was interrupted after a query logs this.
        interrupted = asks and ending == "sys.exit"
        says = "the unit of work was interrupted by SystemExit" if interrupted else ""
        facts = parent.ask("inside_a_unit_of_work", says=says, ending=ending, asks=asks)
        own = facts["reports"][0]
        assert facts["before"] not in own
        if driver != "psycopg pool":  # which lends another one each time
            assert facts["before"] == facts["after"]
        assert len(set(own)) == (1 if asks else 0)
        assert facts["code"] == CODES[ending]
        if ending != "os._exit":
            assert facts["reports"][1] not in (None, facts["before"])


# psycopg's pool


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_child_makes_a_pool_of_its_own_and_leaves_its_parents_alone(
    parents: Parents, postgres: Server, ending: str
) -> None:
    options = {"pool": {"min_size": 4, "max_size": 6}}
    parent = parents(postgres.settings(OPTIONS=options))
    for deed in ("nothing", "close_pool"):
        facts = parent.ask("pooled", deed=deed, ending=ending)
        lent, at_rest = facts["before"]
        assert facts["after"] == facts["before"]
        assert len({*lent, *at_rest}) == len(lent + at_rest) >= 4
        assert facts["child"] not in lent + at_rest
        assert facts["shared"] == []
        assert facts["code"] == ENDINGS[ending]


# Connections that are not Django's


@pytest.mark.parametrize("module", ["pymysql", "MySQLdb"])
def test_a_drivers_own_connection_can_be_guarded(
    parents: Parents, mariadb: MariaDB, module: str
) -> None:
    if not is_installed(module):
        pytest.skip(f"{module} is not installed.")
    options = {"unix_socket": mariadb.socket_host, "user": USER, "password": PASSWORD}
    parent = parents(mariadb.settings())
    facts = parent.ask("bare_driver", options={**options, "database": DATABASE}, driver=module)
    assert facts["after"] == facts["before"]
    assert "Error" in facts["child"][0]
    assert facts["code"] == 0


# multiprocessing


def test_the_processes_of_a_multiprocessing_pool_have_sessions_of_their_own(
    family: Family,
) -> None:
    assert_own_sessions(family(), "fork")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_multiprocessing_works_without_a_fork_too(
    parents: Parents, postgres: Server, method: str
) -> None:
    assert_own_sessions(parents(postgres.settings()), method)


def assert_own_sessions(parent: Parent, method: str) -> None:
    facts = parent.ask("process_pool", method=method)
    assert facts["after"] == facts["before"]
    sessions: dict[int, set[int]] = {}
    for pid, session in facts["rows"]:
        sessions.setdefault(pid, set()).add(session)
    assert len(sessions) == 2, "both of the pool's processes had a turn"
    assert not sessions[pid] & {facts["before"]}
    assert not set.intersection(*sessions.values())
    assert facts["code"] in (0, None)


# Signals


@pytest.fixture
def alone(parents: Parents) -> Callable[..., Parent]:
    """A parent without a server."""
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    return lambda **env: parents(database, env)


def test_a_child_of_a_daemon_dies_of_sigterm_and_its_parent_goes_on(
    alone: Callable[..., Parent],
) -> None:
    facts = alone().ask("under_the_watcher", deed="is told")
    assert facts["reports"] == [[True, -1]], "handlers as they were found, and no wake-up"
    assert facts["code"] == -signal.SIGTERM
    assert facts["goes_on"]
    assert facts["stops"], "the parent's own handling is untouched"


def test_a_child_that_asks_itself_to_stop_does_not_stop_its_parent(
    alone: Callable[..., Parent],
) -> None:
    facts = alone().ask("under_the_watcher", deed="asks itself")
    assert facts["reports"] == [False, "left"]
    assert facts["code"] == 0
    assert facts["goes_on"]
    assert facts["stops"]


def test_a_signal_to_a_new_child_is_not_taken_for_its_parents(
    alone: Callable[..., Parent],
) -> None:
    facts = alone(FORKS_SIGNAL_AT_BIRTH="yes").ask("signalled_at_birth")
    assert facts == {"reports": [], "code": -signal.SIGTERM, "asked": False}


def test_a_fork_waits_until_the_watcher_has_written_its_log_line(alone: Family) -> None:
    facts = alone().ask("while_the_watcher_speaks")
    assert facts == {"reports": [True], "asked": True}


@pytest.mark.parametrize("how", ["process", "fork"])
def test_a_tick_can_end_its_child_and_the_daemon_ticks_on(
    manage: Manage, mariadb: Server, how: str
) -> None:
    env: dict[str, str | None] = {"DATABASE_URL": mariadb.url, "CONN_MAX_AGE": "60"}
    daemon = manage("run_daemon", "parental", "--how", how, manage_py=LIVES, env=env)
    first = daemon.wait_for("child ended with", within=20)
    daemon.wait_for("child ended with", count=2)
    assert daemon.stop() == 0, daemon.output
    assert "ended with -15" in first if how == "process" else "ended with 0" in first
    lines = [line for line in daemon.lines if line.startswith("session")]
    assert len(set(lines)) == 1, "one session from the first tick to the last"
    assert "Traceback" not in daemon.output


# SQLite


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("sqlite") / "entries.sqlite3"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, note TEXT)")
    made.close()
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": {"timeout": 1}}


@pytest.fixture
def on_file(parents: Parents, sqlite_file: dict[str, Any]) -> Callable[..., Any]:
    """Ask a parent whose database is a file."""
    return functools.partial(parents(sqlite_file).ask, path=sqlite_file["NAME"])


@pytest.mark.parametrize("asks", [False, True], ids=["", "that asks"])
@pytest.mark.parametrize("ending", ["sys.exit", "exception", "goes on", "SIGKILL"])
def test_a_sqlite_transaction_of_the_parent_outlives_a_child(
    on_file: Callable[..., Any], ending: str, asks: bool
) -> None:
    facts = on_file("sqlite_locked", ending=ending, asks=asks)
    assert facts["meanwhile"] == "database is locked"
    assert facts["rows"] == "[(200,)]"
    assert facts["integrity"] == "[('ok',)]"
    assert facts["code"] == CODES[ending]
    if asks:
        assert "forked while its parent was busy in the SQLite database" in facts["reports"][0]


@pytest.mark.parametrize("reading", [False, True], ids=["idle", "reading"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_a_child_writes_to_sqlite_stays_when_its_parent_closes_the_file(
    on_file: Callable[..., Any], mode: str, reading: bool
) -> None:
    facts = on_file("sqlite_idle", mode=mode, reading=reading)
    assert facts["reports"] == [2, None]
    assert facts["still"] == (1 if reading else 0)
    assert facts["rows"] == "[('parent',), ('parent',), ('child',)]"


def test_a_child_uses_no_sqlite_file_with_a_wal_that_another_thread_of_its_parent_has_open(
    on_file: Callable[..., Any],
) -> None:
    facts = on_file("sqlite_of_threads", mode="wal")
    assert "forked while its parent was busy" in facts["child"]
    assert facts["rows"] == "[('parent',)]"
    assert facts["code"] == 0


def test_a_child_shares_a_sqlite_file_that_is_idle_in_its_parents_threads(
    on_file: Callable[..., Any],
) -> None:
    facts = on_file("sqlite_of_threads", mode="delete")
    assert facts["child"] is None
    assert facts["rows"] == "[('parent',), ('child',)]"


def test_a_database_in_memory_is_the_childs_own_copy(alone: Callable[..., Parent]) -> None:
    assert alone().ask("sqlite_in_memory") == {"child": 2, "code": 0, "rows": 1}
