"""One leader among real processes and on real servers: stops, crashes, freezes, lost networks."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from daemonkit.testing import Gates
from lab.processes import ROOT, Daemon
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.leases import TABLE, epoch, holder, lease_table, renewals
from tests.kit.processes import LIVES, Manage
from tests.kit.projects import Project
from tests.kit.servers import MakeProxy
from tests.leader_nemesis import Nemesis

PATIENT = 30.0
LONG_LEASE = "80s"
"""A standby that leads within PATIENT seconds has not waited for such a lease to expire."""


with_pool = pytest.mark.parametrize("server", ["mariadb", "postgres", "pool"], indirect=True)
"""Also PostgreSQL with Django's pool."""


@pytest.fixture(params=["mariadb", "postgres"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each server in turn."""
    found: Server = request.getfixturevalue("mariadb" if request.param == "mariadb" else "postgres")
    return found


@pytest.fixture
def table(server: Server, alias: MakeAlias) -> Iterator[None]:
    with lease_table(alias(server)):
        yield


@pytest.fixture
def live(
    manage: Manage, server: Server, table: None, request: pytest.FixtureRequest
) -> Callable[..., Daemon]:
    """``live("--seconds", "2", port=...)``: start one process that can lead."""
    pool = "1" if "pool" in request.node.callspec.params.values() else None

    def start(*arguments: str, port: int | None = None, name: str = "leading") -> Daemon:
        url = server.url_through(port) if port else server.url
        env = {"DATABASE_URL": url, "POOL": pool}
        return manage("run_daemon", name, *arguments, manage_py=LIVES, env=env)

    return start


Live = Callable[..., Daemon]


def leads(daemon: Daemon, count: int = 1) -> int:
    """Wait until it has begun to lead ``count`` times. Returns the epoch."""
    line = daemon.wait_for("leads, epoch", within=PATIENT, count=count)
    daemon.wait_for(re.compile(f"^begins {line.split()[-1]} "), within=PATIENT)
    return int(line.split()[-1])


def stands_by(daemon: Daemon) -> str:
    """Wait until it stands by. Returns the leader."""
    line = daemon.wait_for("stands by", within=PATIENT)
    found = re.search(r"stands by: (\S+) leads", line)
    assert found, line
    return found[1]


def pair(live: Live, *arguments: str) -> tuple[Daemon, Daemon]:
    """A leader and a standby."""
    first = live(*arguments)
    assert leads(first) == 1
    second = live(*arguments)
    assert stands_by(second).endswith(f":{first.pid}")
    return first, second


def writes(server: Server) -> list[tuple[int, int]]:
    """Return the epochs and numbers that were written, in the order of the rows."""
    rows = server.execute("SELECT note FROM entry ORDER BY id")
    return [(int(row[0].split()[0]), int(row[0].split()[1])) for row in rows]


def acknowledged(*daemons: Daemon) -> list[tuple[int, int]]:
    lines = [line for daemon in daemons for line in list(daemon.lines)]
    found = [re.fullmatch(r"wrote (\d+) (\d+)", line) for line in lines]
    return [(int(match[1]), int(match[2])) for match in found if match]


def holds(server: Server, *daemons: Daemon) -> None:
    """Check that no two epochs interleave, and that every acknowledged write is there once."""
    written = writes(server)
    epochs = [epoch for epoch, _ in written]
    assert epochs == sorted(epochs)
    assert len(set(written)) == len(written)
    assert set(acknowledged(*daemons)) <= set(written)


def moment(line: str) -> datetime:
    """Return the time at which a line was logged."""
    return datetime.fromisoformat(" ".join(line.split()[:2]))


# Handovers


def test_of_two_one_ticks_and_the_other_is_ready_and_says_who_leads(
    live: Live, server: Server
) -> None:
    first, second = pair(live)
    first.wait_for("wrote 1 9", within=PATIENT)
    assert holder(server).split(":")[1] == str(first.pid)
    assert second.stop() == 0
    assert "begins" not in second.output
    assert first.stop() == 0
    assert holder(server) == ""
    holds(server, first)


@with_pool
def test_a_clean_stop_hands_over_long_before_the_lease_expires(live: Live, server: Server) -> None:
    """Each handover takes less than half of the lease's duration."""
    first, second = pair(live, "--lease", LONG_LEASE)
    first.signal(signal.SIGTERM)
    leads(second)
    assert first.wait() == 0
    third = live("--lease", LONG_LEASE)
    stands_by(third)
    assert second.stop() == 0
    assert leads(third) == 3
    assert third.stop() == 0
    holds(server, first, second, third)


def test_the_tick_in_flight_ends_before_the_lease_is_released(
    live: Live, server: Server, gates: Gates
) -> None:
    gate = gates.close("tick 1")
    first, second = pair(live)
    first.signal(signal.SIGTERM)
    first.wait_for("stops: SIGTERM", within=PATIENT)
    assert holder(server).split(":")[1] == str(first.pid)
    gate.open()
    leads(second)
    assert first.wait() == 0
    assert "1 1" in [line[6:] for line in first.lines if line.startswith("wrote")]
    second.stop()
    holds(server, first, second)


def test_sighup_releases_the_lease_and_reloads_the_process(live: Live, server: Server) -> None:
    first = live()
    leads(first)
    first.signal(signal.SIGHUP)
    assert leads(first, count=2) == 2
    assert first.stop() == 0
    assert "stands by" not in first.output  # the lease was free
    holds(server, first)


def test_due_times_under_another_leader_are_not_run_and_every_is_due_at_once(
    live: Live, server: Server
) -> None:
    first, second = pair(live, "--every", "1h")
    first.stop()
    leads(second)  # its first tick, an hour early
    second.stop()
    assert second.output.count("begins") == 1


# Crashes


@with_pool
def test_a_standby_takes_over_from_a_crashed_leader(live: Live, server: Server) -> None:
    first, second = pair(live)
    first.signal(signal.SIGKILL)
    leads(second)
    assert second.stop() == 0
    first.wait()
    holds(server, first, second)


def test_a_forced_end_does_not_release_the_lease(live: Live, server: Server) -> None:
    first, second = pair(live, "--seconds", "60", "--stop-timeout", "300ms")
    assert first.stop() == 70
    assert holder(server) != ""
    leads(second)
    assert second.stop() == 70
    server.kill_sessions()


# Freezes


def test_a_standby_takes_over_from_a_frozen_leader_which_stops_when_it_thaws(
    live: Live, server: Server
) -> None:
    first, second = pair(live)
    first.signal(signal.SIGSTOP)
    leads(second)
    second.wait_for("wrote 2 3", within=PATIENT)
    seen = len(first.lines)
    first.signal(signal.SIGCONT)
    first.wait_for("no longer leads", within=PATIENT)
    assert stands_by(first).endswith(f":{second.pid}")
    assert first.is_running
    assert second.stop() == 0
    assert leads(first, count=2) == 3
    assert first.stop() == 0
    # No tick was started once the lease was over.
    assert not [line for line in first.lines[seen:] if line.startswith("begins 1 ")]
    holds(server, first, second)


def test_a_guarded_write_of_a_thawed_tick_is_refused(
    live: Live, server: Server, gates: Gates
) -> None:
    gate = gates.close("tick 2")
    first, second = pair(live)
    gate.wait_for()
    first.signal(signal.SIGSTOP)
    leads(second)
    second.wait_for("wrote 2 1", within=PATIENT)
    gate.open()
    first.signal(signal.SIGCONT)
    first.wait_for("no longer leads", within=PATIENT)
    assert first.stop() == 0
    assert second.stop() == 0
    assert "wrote 1 2" not in first.output
    holds(server, first, second)


# Lost networks


@with_pool
def test_a_leader_whose_network_is_gone_stops_before_another_starts(
    live: Live, server: Server, proxy: MakeProxy
) -> None:
    through = proxy(server)
    first = live("--seconds", "0.2", "--python", port=through.port)
    leads(first)
    second = live()
    stands_by(second)
    through.stall()
    lost = moment(first.wait_for("no longer leads", within=PATIENT))
    assert leads(second) == 2
    assert lost <= moment(second.wait_for("leads, epoch 2"))
    through.resume()
    assert stands_by(first).endswith(f":{second.pid}")
    assert second.stop() == 0
    assert leads(first, count=2) == 3
    assert first.stop() == 0
    holds(server, first, second)


@with_pool
def test_a_tick_that_outlives_its_leadership_cannot_open_a_connection(
    live: Live, server: Server, table: None
) -> None:
    """It computes without a connection that could be cut, and then tries to write."""
    first = live("--seconds", "3", "--python", "--late-write")
    leads(first)
    server.execute(
        f"UPDATE {TABLE} SET holder = 'other:1:token', epoch = epoch + 1, renewals = renewals + 1"
    )
    first.wait_for("no longer leads: other:1 took the lease", within=PATIENT)
    first.wait_for("refused 1 1", within=PATIENT)
    assert writes(server) == []
    assert leads(first, count=2) == 3  # the other process does not renew
    first.wait_for("wrote 3 2", within=PATIENT)
    assert first.stop() == 0


def test_a_statement_of_a_tick_that_outlives_its_leadership_is_cut(
    live: Live, server: Server
) -> None:
    first = live("--seconds", "60", "--max-failures", "1")
    leads(first)
    eventually(lambda: "sleep(60" in str(server.session_rows()).lower())
    server.execute(
        f"UPDATE {TABLE} SET holder = 'other:1:token', epoch = epoch + 1, renewals = renewals + 1"
    )
    first.wait_for("tick 1 failed", within=PATIENT)
    assert leads(first, count=2) == 3  # it stood by again, and did not end by max_failures
    first.signal(signal.SIGKILL)
    first.wait()
    server.kill_sessions()


@with_pool
def test_killed_sessions_do_not_end_the_leadership(live: Live, server: Server) -> None:
    first = live()
    leads(first)
    for _ in range(5):
        server.kill_sessions()
        before = len(acknowledged(first))
        eventually(lambda before=before: len(acknowledged(first)) > before, within=PATIENT)  # type: ignore[misc]
    assert epoch(server) == 1
    assert first.stop() == 0
    holds(server, first)


def test_a_stopped_server_ends_no_process_and_one_leads_when_it_is_back(
    live: Live, server: Server
) -> None:
    first, second = pair(live)
    server.stop()
    first.wait_for("no longer leads", within=PATIENT)
    server.start()
    eventually(lambda: epoch(server) > 1, within=PATIENT, what="another process leads")
    eventually(lambda: [each for each in writes(server) if each[0] > 1], within=PATIENT)
    assert first.stop() == 0
    assert second.stop() == 0
    holds(server, first, second)


@with_pool
def test_a_daemon_that_stops_while_the_server_is_away_does_not_log_its_return(
    live: Live, server: Server
) -> None:
    daemon = live()
    daemon.wait_for("leads, epoch", within=20)
    server.stop()
    daemon.wait_for("no longer leads", within=20)
    assert daemon.stop(within=20) == 0
    server.start()
    assert "can reach its lease again" not in daemon.stderr


def test_a_server_that_is_away_at_start_is_waited_for(live: Live, server: Server) -> None:
    server.stop()
    first = live()
    first.wait_for("waits for the database", within=PATIENT)
    server.start()
    assert leads(first) == 1
    assert first.stop() == 0


# Overdue ticks


def test_the_lease_is_renewed_during_a_long_tick_but_not_past_its_tick_timeout(
    live: Live, server: Server, gates: Gates
) -> None:
    gates.close("tick 1")
    first, second = pair(live, "--tick-timeout", "5s", "--pulse", "20s")
    seen = renewals(server)
    eventually(lambda: renewals(server) >= seen + 2, within=PATIENT)
    first.wait_for("is past its tick_timeout", within=PATIENT)
    first.wait_for("no longer leads: the lease was not renewed in time: a tick is past", PATIENT)
    assert leads(second) == 2
    for daemon in (first, second):
        daemon.signal(signal.SIGKILL)
        daemon.wait()


# --once


def test_once_ticks_without_a_leader_and_ends_with_1_if_there_is_one(
    live: Live, server: Server
) -> None:
    alone = live("--once")
    assert alone.wait(PATIENT) == 0
    assert "wrote 1 1" in alone.output
    first = live()
    leads(first)
    second = live("--once")
    assert second.wait(PATIENT) == 1
    assert f"did not tick: {holder(server).rpartition(':')[0]} leads" in second.output
    first.signal(signal.SIGKILL)
    first.wait()
    third = live("--once")
    assert third.wait(PATIENT) == 0
    assert "wrote 3 1" in third.output


# Refusals


def test_a_leader_on_sqlite_is_refused_with_the_reason(manage: Manage) -> None:
    daemon = manage("run_daemon", "steady", "--every", "1s", "--leader", manage_py=LIVES)
    assert daemon.wait(PATIENT) == 2
    assert "cannot have a leader on SQLite" in daemon.output
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize("server", ["mariadb", "postgres"], indirect=True)
def test_a_leader_without_the_migration_is_told_to_migrate(manage: Manage, server: Server) -> None:
    server.execute(f"DROP TABLE IF EXISTS {TABLE}")
    daemon = manage("run_daemon", "leading", manage_py=LIVES, env={"DATABASE_URL": server.url})
    assert daemon.wait(PATIENT) == 78
    assert "manage.py migrate daemonkit" in daemon.output
    assert "Traceback" not in daemon.output


def test_a_lease_shorter_than_its_renew_deadline_is_refused(manage: Manage) -> None:
    arguments = ["--leader", "--lease", "5s", "--renew-deadline", "6s"]
    daemon = manage("run_daemon", "steady", *arguments, manage_py=LIVES)
    assert daemon.wait(PATIENT) == 2
    assert "not longer than its renew_deadline of 6 s" in daemon.output
    assert "Traceback" not in daemon.output


# The example in the docs


def test_the_daemon_in_the_docs_leads_and_ticks(
    server: Server, tmp_path: Path, manage: Manage
) -> None:
    page = (ROOT / "docs" / "leader.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    project = Project(tmp_path, manage)
    project.command("expire_forgotten", code)
    server.create_database("shop")
    try:
        url = server.url_through(server.port, "shop")
        assert project.manage("migrate", "-v", "0", DATABASE_URL=url).wait(60) == 0
        daemon = project.manage("expire_forgotten", "--max-ticks", "1", DATABASE_URL=url)
        daemon.wait_for("leads, epoch 1", within=PATIENT)
        assert daemon.wait(PATIENT) == 0
        assert " failed " not in daemon.output
    finally:
        server.drop_database("shop")


# All faults at random


def test_under_a_nemesis_no_epochs_interleave_and_no_acknowledged_write_is_lost(
    server: Server, table: None
) -> None:
    """``python -m tests.leader_nemesis`` runs this for minutes."""
    nemesis = Nemesis(server, lease=1.5, seed=20)
    nemesis.run(seconds=12)
    assert nemesis.tally.epochs > 1, str(nemesis.tally)
