"""Status and orders: real processes on real servers, seen and steered from a shell."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from daemonkit import Exit
from daemonkit.models import PollerRow
from daemonkit.status.code_version import code_version
from daemonkit.testing.gates import Gates
from lab.processes import ROOT, Daemon, child_environment, manage_command
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.processes import LIVES, Manage, migrate
from tests.kit.projects import Project
from tests.kit.queues import queue_tables
from tests.queues.models import Letter

pytestmark = pytest.mark.one_python

PULSE = 0.5
"""The pulse of the daemons here, in seconds."""


class Host:
    """A shell on a host: starts daemons, and asks for their status."""

    def __init__(self, manage: Manage, server: Server) -> None:
        self._manage, self.server = manage, server
        self.env: dict[str, str | None] = {"DATABASE_URL": server.url}
        migrate(manage, server)
        for table in ("process", "order", "run", "lease"):
            server.execute(f"DELETE FROM daemonkit_{table}")

    def manage(self, *arguments: str, **env: str | None) -> Daemon:
        return self._manage(*arguments, manage_py=LIVES, env={**self.env, **env})

    def start(self, *arguments: str, **env: str | None) -> Daemon:
        return self.manage("run_daemon", *arguments, **env)

    def daemons(self, *arguments: str, code: int = 0) -> str:
        """Run ``daemons ACTION``, which must end with this code, and return what it says."""
        said = self.manage("daemons", *arguments)
        assert said.wait(30) == code, said.output
        assert "Traceback" not in said.output
        return said.output

    def rows(self) -> list[dict[str, Any]]:
        """What the processes have reported."""
        found = self.server.execute("SELECT report FROM daemonkit_process ORDER BY daemon")
        return [row[0] if isinstance(row[0], dict) else json.loads(row[0]) for row in found]

    def reports(self, daemon: Callable[[dict[str, Any]], bool], within: float = 20) -> None:
        """Wait until there is one row, and it says this."""
        eventually(lambda: len(rows := self.rows()) == 1 and daemon(rows[0]), within)

    def is_in(self, state: str) -> None:
        self.reports(lambda row: row["state"] == state)


@pytest.fixture
def host(manage: Manage, server: Server) -> Host:
    return Host(manage, server)


def ticks(daemon: Daemon) -> int:
    return len(re.findall(r"tick \d+ of", daemon.so_far))


def ticks_go_on(daemon: Daemon) -> None:
    before = ticks(daemon)
    eventually(lambda: ticks(daemon) > before + 1, within=20)


def no_tick_in(daemon: Daemon, seconds: float) -> None:
    before, until = ticks(daemon), time.monotonic() + seconds
    while time.monotonic() < until:
        assert ticks(daemon) == before
        time.sleep(0.05)


# What a row says


def test_status_shows_a_process_with_all_that_is_known_of_it(host: Host) -> None:
    daemon = host.start("governed", "--fails-after", "3", DAEMONKIT='{"version": "v7"}')
    host.is_in("backing off")
    (found,) = json.loads(host.daemons("status", "governed", "--format", "json"))["processes"]
    assert (found["daemon"], found["pid"], found["worker"]) == ("governed", daemon.pid, 1)
    assert (found["ticks"], found["failures"], found["starts"]) == (4, 1, 1)
    assert found["last_error"] == "ValueError: no such price"
    assert found["version"] == "v7"
    assert found["success_ago"] > 0
    assert found["last_seconds"] < 1
    assert 200 < found["due_in"] <= 600
    assert found["backlog"] is found["dead_letters"] is None
    assert 0 <= found["since"] <= found["started_ago"]
    text = host.daemons("status")
    assert f":{daemon.pid}  backing off for" in text
    assert "last error: ValueError: no such price" in text
    assert max(map(len, text.splitlines())) <= 80
    assert daemon.stop(within=30) == 0


@pytest.mark.parametrize(
    ("arguments", "state"),
    [(("--seconds", "60"), "ticking"), (("--every", "1h"), "waiting")],
)
def test_status_shows_what_a_process_does(
    host: Host, arguments: tuple[str, ...], state: str
) -> None:
    daemon = host.start("governed", *arguments)
    host.is_in(state)
    daemon.signal(signal.SIGTERM)
    if state == "ticking":
        host.is_in("stopping")
        daemon.signal(signal.SIGKILL)
    daemon.wait(30)


def test_a_process_that_waits_for_its_database_is_starting_and_a_standby_stands_by(
    host: Host,
) -> None:
    first = host.start("governed", "--leader")
    first.wait_for("tick 1", within=30)
    second = host.start("governed", "--leader")
    eventually(lambda: {row["state"] for row in host.rows()} >= {"standing by"}, within=20)
    assert host.daemons("status", "--check", "governed") == "governed: as expected"
    assert first.stop(within=30) == second.stop(within=30) == 0


def test_the_row_of_a_process_that_was_asked_to_end_is_removed(host: Host) -> None:
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    assert daemon.stop(within=30) == 0
    assert host.rows() == []
    assert host.daemons("status", "--check") == "no daemon: as expected"


def test_the_row_of_a_process_that_failed_stays_until_its_successor_comes(host: Host) -> None:
    daemon = host.start("governed", "--max-failures", "1", "--fails-after", "0")
    assert daemon.wait(30) == Exit.MAX_FAILURES
    host.is_in("ended")
    assert "has ended" in host.daemons("status", "--check", code=1)
    again = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0 and len(row["starts"]) == 2)
    assert "2 times within the hour" in host.daemons("status")
    assert again.stop(within=30) == 0


def test_rows_of_the_dead_and_orders_that_are_over_are_pruned(host: Host) -> None:
    report = json.dumps({"state": "ticking", "pulse": 1, "started_age": 1, "state_age": 1})
    for number in range(3):
        host.server.execute(
            "INSERT INTO daemonkit_process VALUES "
            f"('gone:{number}:00', 'governed', '2020-01-01 00:00:00', '{report}')"
        )
    host.server.execute(
        "INSERT INTO daemonkit_order (daemon, verb, given, until, taken_by, details) VALUES "
        "('governed', 'stop', '2020-01-01 00:00:00', '2020-01-01 00:01:00', '', '{}')"
    )
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    eventually(lambda: not host.server.execute("SELECT id FROM daemonkit_order"))
    assert daemon.stop(within=30) == 0


def test_the_version_of_the_code_is_the_commit_of_its_repository() -> None:
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert code_version(ROOT / "sample_site") == head.stdout[:12]


def test_a_terminal_gets_a_table_where_rich_is_installed(host: Host) -> None:
    pytest.importorskip("rich")
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    parent, child = pty.openpty()
    shown = subprocess.Popen(
        manage_command("daemons", "status", "--watch", "200ms", manage_py=LIVES),
        env=child_environment(host.env),
        stdout=child,
    )
    os.close(child)
    text = ""
    until = time.monotonic() + 30
    while text.count("governed") < 2 and time.monotonic() < until:
        text += os.read(parent, 4096).decode()
    shown.send_signal(signal.SIGINT)
    assert shown.wait(30) == 0
    os.close(parent)
    assert "\033[32m" in text  # green
    assert "\033[2J" in text
    assert daemon.stop(within=30) == 0


def test_a_server_is_serving_while_it_gives_a_sign_of_life_and_has_no_ticks_to_pause(
    host: Host,
) -> None:
    daemon = host.start("serving")
    host.is_in("serving")
    (before,) = host.server.execute("SELECT touched FROM daemonkit_process")
    # Longer than a loop may take to come round, were it one.
    eventually(lambda: host.rows()[0]["state_age"] > 3 * PULSE, within=20)
    assert host.server.execute("SELECT touched FROM daemonkit_process") != [before]
    assert host.daemons("status", "--check", "serving") == "serving: as expected"
    for order in ("pause", "run"):
        assert "serving is a server, which has no ticks" in host.daemons(order, "serving", code=2)
    assert daemon.stop(within=30) == 0


def test_the_row_of_a_poller_has_its_backlog_and_its_dead_letters(
    host: Host, alias: MakeAlias, tmp_path: Path
) -> None:
    name = alias(host.server)
    with queue_tables(name), Gates() as gates:
        letters = Letter.objects.using(name).bulk_create([Letter(kind="gate") for _ in range(3)])
        first = Letter.objects.using(name).order_by("pk").first()
        gate = gates.close(f"letter {first.pk if first else 0}")
        dead = PollerRow(poller="posting", key="0", not_before=timezone.now(), dead=True)
        dead.save(using=name)
        daemon = host.start("posting", "--pulse", "0.5", OUTSIDE=str(tmp_path))
        gate.wait_for()
        host.reports(lambda row: (row["backlog"], row["dead_letters"]) == (len(letters), 1))
        gate.open()
        assert daemon.stop(within=30) == 0


# For a monitor


def test_a_frozen_process_is_silent_within_three_pulses_and_works_again_when_it_is_thawed(
    host: Host,
) -> None:
    daemon = host.start("governed", "--pulse", "1s")
    host.reports(lambda row: row["ticks"] > 0)
    assert host.daemons("status", "--check", "governed") == "governed: as expected"
    daemon.signal(signal.SIGSTOP)
    frozen = time.monotonic()
    query = "SELECT touched FROM daemonkit_process"
    last = host.server.execute(query)
    time.sleep(max(0.0, frozen + 3.0 - time.monotonic()))  # the promise is about this time
    assert host.server.execute(query) == last
    assert re.search(
        rf"governed on \S+:{daemon.pid} is silent: last seen \d",
        host.daemons("status", "--check", "governed", code=1),
    )
    assert "silent for" in host.daemons("status")
    daemon.signal(signal.SIGCONT)
    host.reports(lambda row: host.server.execute(query) != last)
    assert host.daemons("status", "--check", "governed") == "governed: as expected"
    assert daemon.stop(within=30) == 0


def test_a_tick_past_its_timeout_looks_stuck(host: Host) -> None:
    daemon = host.start("hanging", "--tick-timeout", "300ms", "--pulse", "5s")
    daemon.wait_for("is past its tick_timeout", within=30)
    (before,) = host.server.execute("SELECT touched FROM daemonkit_process")
    time.sleep(1.5)
    assert host.server.execute("SELECT touched FROM daemonkit_process") == [before]
    daemon.signal(signal.SIGKILL)
    daemon.wait(30)


def test_check_says_that_a_daemon_has_not_succeeded_in_time(host: Host) -> None:
    daemon = host.start("governed", "--fails-after", "1", EXPECT="1")
    host.is_in("backing off")
    eventually(
        lambda: "governed last succeeded" in str(check(host).get("complaints")),
        within=20,
        every=0.3,
    )
    (complaint,) = check(host)["complaints"]
    assert re.fullmatch(
        r"governed last succeeded \S+ ago, though 1s is the limit: ValueError: no such price",
        complaint,
    )
    assert daemon.stop(within=30) == 0


def check(host: Host) -> dict[str, Any]:
    said = host.manage("daemons", "status", "--check", "governed", "--format", "json")
    said.wait(30)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_a_daemon_without_a_process_fails_the_check(host: Host) -> None:
    assert host.daemons("status", "--check", "governed", code=1) == "governed has no process"


def test_two_hosts_whose_clocks_are_an_hour_apart_are_both_seen_alive(host: Host) -> None:
    library = next(iter(Path("/usr/lib").glob("**/libfaketime.so.1")), None)
    if library is None:
        pytest.skip("libfaketime is not installed (Debian: apt install faketime)")
    fake = {
        "LD_PRELOAD": str(library),
        "FAKETIME": "+1h",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    started = [host.start("governed"), host.start("governed", **fake)]
    eventually(lambda: len(host.rows()) == 2 and all(r["ticks"] > 3 for r in host.rows()), 30)
    found = json.loads(host.daemons("status", "--format", "json"))["processes"]
    assert {each["state"] for each in found} <= {"waiting", "ticking"}
    assert all(0 <= each["seen_ago"] < 3 for each in found)
    assert [daemon.stop(within=30) for daemon in started] == [0, 0]


# When the database is away


def test_a_daemon_whose_database_was_down_shows_up_again_by_itself(host: Host) -> None:
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    host.server.stop()
    daemon.wait_for("cannot write its status or read its orders", within=30)
    ticks_go_on(daemon)
    host.server.start()
    daemon.wait_for("can write its status and read its orders again", within=60)
    before = ticks(daemon)
    host.reports(lambda row: row["ticks"] >= before, within=30)
    assert daemon.stop(within=30) == 0
    assert daemon.output.count("cannot write its status") == 1


def test_the_last_known_order_holds_while_the_database_is_away(host: Host) -> None:
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    host.daemons("pause", "governed")
    host.is_in("paused")
    host.server.stop()
    daemon.wait_for("cannot write its status or read its orders", within=30)
    no_tick_in(daemon, 1.5)
    host.server.start()
    assert daemon.stop(within=30) == 0


def test_a_daemon_that_cannot_read_its_orders_ticks_after_two_seconds_and_says_so_once(
    host: Host,
) -> None:
    host.server.freeze()
    try:
        daemon = host.start("governed", "--skip-checks")
        daemon.wait_for("could not read its orders, and begins without them", within=30)
        ticks_go_on(daemon)
        assert daemon.stop(within=30) == 0
        assert daemon.output.count("could not read its orders") == 1
    finally:
        host.server.thaw()


def test_a_frozen_database_holds_no_tick_up(host: Host) -> None:
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    host.server.freeze()
    try:
        ticks_go_on(daemon)
        ticks_go_on(daemon)
        assert daemon.stop(within=30) == 0
    finally:
        host.server.thaw()


def test_with_status_off_there_is_no_query_and_no_order(host: Host) -> None:
    host.env["DAEMONKIT"] = '{"status": false}'
    daemon = host.start("governed")
    daemon.wait_for("tick 3", within=30)
    assert not host.server.sessions()
    assert host.rows() == []
    assert "take no orders" in host.daemons("pause", "governed", code=1)
    assert daemon.stop(within=30) == 0


def test_without_the_migration_a_daemon_ticks_and_status_says_how_to_migrate(
    host: Host,
) -> None:
    for table in ("process", "order"):
        host.server.execute(f"ALTER TABLE daemonkit_{table} RENAME TO away_{table}")
    try:
        daemon = host.start("governed")
        daemon.wait_for("tick 3", within=30)
        for action in (("status",), ("pause", "governed"), ("run", "governed")):
            said = host.daemons(*action, code=Exit.MISCONFIGURED)
            assert "run `manage.py migrate daemonkit`" in said
        assert daemon.stop(within=30) == 0
        assert "ERROR" not in daemon.output
    finally:
        for table in ("process", "order"):
            host.server.execute(f"ALTER TABLE away_{table} RENAME TO daemonkit_{table}")


# Orders


def test_a_pause_survives_kill_9_and_a_deploy_and_says_who_why_and_until_when(
    host: Host,
) -> None:
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    said = host.daemons("pause", "governed", "--until", "2h", "--why", "stock taking")
    assert re.match(r"governed is paused for (2h|1h59m\d+s)\. Read within 500ms by ", said)
    daemon.wait_for(re.compile(r"governed is paused by \S+@\S+ until .*: stock taking"), within=20)
    host.is_in("paused")
    no_tick_in(daemon, 1)
    daemon.signal(signal.SIGKILL)
    daemon.wait(30)
    again = host.start("governed")
    again.wait_for("is paused by", within=30)
    host.is_in("paused")
    assert ticks(again) == 0
    assert again.stop(within=30) == 0  # the deploy
    deployed = host.start("governed")
    host.is_in("paused")
    assert ticks(deployed) == 0
    text = " ".join(host.daemons("status").split())
    assert re.search(r"paused for \S+ \(by \S+@\S+, for 1h59m\S+: stock taking\)", text)
    assert re.search(r"governed is paused by \S+@\S+, for 1h59m\S+: stock taking", text)
    assert "is paused" in host.daemons("status", "--check", code=1)
    assert "governed goes on" in host.daemons("resume", "governed")
    ticks_go_on(deployed)
    assert deployed.stop(within=30) == 0


def test_a_pause_ends_by_itself(host: Host) -> None:
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    host.daemons("pause", "governed", "--until", "2s")
    daemon.wait_for("is paused by", within=20)
    before = ticks(daemon)
    daemon.wait_for("is no longer paused", within=20)
    eventually(lambda: ticks(daemon) > before + 1, within=20)
    assert daemon.stop(within=30) == 0


def test_a_tick_is_run_now_while_the_daemon_backs_off_and_while_it_waits(host: Host) -> None:
    daemon = host.start("governed", "--fails-after", "1")
    host.is_in("backing off")
    assert f"governed runs now on {os.uname().nodename}:{daemon.pid}" in host.daemons(
        "run", "governed"
    )
    daemon.wait_for("tick 3", within=20)
    assert daemon.stop(within=30) == 0


def test_a_paused_daemon_is_run_only_by_force_and_then_once(host: Host) -> None:
    daemon = host.start("governed", "--every", "300ms")
    host.reports(lambda row: row["ticks"] > 0)
    host.daemons("pause", "governed")
    host.is_in("paused")
    before = ticks(daemon)
    assert "--force runs it once" in host.daemons("run", "governed", code=Exit.USAGE)
    host.daemons("run", "governed", "--force")
    eventually(lambda: ticks(daemon) == before + 1, within=20)
    no_tick_in(daemon, 1.5)
    assert daemon.stop(within=30) == 0


def test_orders_reach_a_daemon_while_a_tick_runs(host: Host) -> None:
    daemon = host.start("governed", "--seconds", "3", "--every", "100ms")
    host.is_in("ticking")
    host.daemons("pause", "governed")
    daemon.wait_for("is paused by", within=2.5)
    host.is_in("paused")
    before = ticks(daemon)
    host.daemons("run", "governed", "--force")
    eventually(lambda: ticks(daemon) == before + 1, within=20)
    assert "1 process will stop" in host.daemons("stop", "governed")
    assert daemon.wait(30) == 0
    assert "stops: ordered by" in daemon.output


def test_a_standby_leaves_an_order_to_run_to_the_leader(host: Host) -> None:
    leader = host.start("governed", "--leader", "--every", "1h")
    leader.wait_for("tick 1", within=30)
    standby = host.start("governed", "--leader", "--every", "1h")
    eventually(lambda: {row["state"] for row in host.rows()} == {"standing by", "waiting"}, 20)
    assert f":{leader.pid}" in host.daemons("run", "governed")
    leader.wait_for("tick 2", within=20)
    assert ticks(standby) == 0
    host.daemons("stop", "governed")
    assert leader.wait(30) == standby.wait(30) == 0


def test_an_order_of_before_its_start_does_not_stop_a_daemon(host: Host) -> None:
    first = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    host.daemons("stop", "governed")
    assert first.wait(30) == 0
    again = host.start("governed")
    host.reports(lambda row: row["ticks"] > 10)
    assert again.stop(within=30) == 0
    assert "ordered" not in again.output


def test_stop_reaches_only_the_named_host(host: Host) -> None:
    daemon = host.start("governed")
    host.reports(lambda row: row["ticks"] > 0)
    said = host.daemons("stop", "governed", "--host", "elsewhere", code=1)
    assert "no process of governed on elsewhere takes orders" in said
    assert "1 process" in host.daemons("stop", "governed", "--host", os.uname().nodename)
    assert daemon.wait(30) == 0


def test_a_reload_everywhere_reaches_all_processes_without_systemd(host: Host) -> None:
    daemons = [host.start("governed"), host.start("governed", "--workers", "2")]
    eventually(lambda: len(host.rows()) == 3 and all(r["ticks"] for r in host.rows()), within=30)
    said = host.daemons("reload", "governed", "--everywhere")
    assert said.startswith("governed: 3 processes will reload. Read within 500ms by ")
    for daemon in daemons:
        daemon.wait_for(re.compile(r"governed is to reload, ordered by \S+@\S+"), within=20)
    alone, supervised = daemons
    eventually(lambda: alone.so_far.count("governed started") == 2, within=30)
    eventually(lambda: supervised.so_far.count("supervisor of governed") == 2, within=30)
    assert [daemon.stop(within=30) for daemon in daemons] == [0, 0]


# Jobs


def runs(host: Host, job: str) -> list[tuple[str, str]]:
    query = f"SELECT status, reason FROM daemonkit_run WHERE job = '{job}' ORDER BY due"
    return [(row[0], row[1]) for row in host.server.execute(query)]


def test_a_paused_job_has_rows_in_the_ledger_and_the_others_go_on(host: Host) -> None:
    daemon = host.start("governed_jobs")
    daemon.wait_for("often", within=30)
    host.daemons("pause", "governed_jobs", "--job", "often", "--why", "too often")
    daemon.wait_for("governed_jobs often is paused by", within=20)
    eventually(lambda: ("skipped", "paused") in runs(host, "often"), within=20)
    assert "often is paused by" in host.daemons("status")
    assert "runs now" in host.daemons("run", "governed_jobs", "--job", "seldom")
    daemon.wait_for(re.compile("^seldom$"), within=20)
    host.daemons("resume", "governed_jobs", "--job", "often")
    daemon.wait_for("often is no longer paused", within=20)
    before = daemon.so_far.count("\noften")
    eventually(lambda: daemon.so_far.count("\noften") > before, within=20)
    assert daemon.stop(within=30) == 0


def test_a_job_is_run_now_through_its_claim_and_its_schedule_goes_on(host: Host) -> None:
    daemon = host.start("governed_jobs")
    host.reports(lambda row: row["ticks"] > 0)
    before, ran = len(runs(host, "seldom")), daemon.so_far.count("\nseldom")
    host.daemons("run", "governed_jobs", "--job", "seldom")
    eventually(lambda: len(runs(host, "seldom")) == before + 1, within=20)
    eventually(lambda: daemon.so_far.count("\nseldom") == ran + 1, within=20)
    eventually(lambda: runs(host, "seldom")[-1] == ("ran", ""), within=20)
    times = "SELECT due FROM daemonkit_run WHERE job = 'often' AND status = 'ran' ORDER BY due"
    eventually(lambda: len(host.server.execute(times)) > 6, within=20)
    assert daemon.stop(within=30) == 0
    due = [row[0] for row in host.server.execute(times)]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(due)]
    assert all(abs(gap / 0.3 - round(gap / 0.3)) < 0.05 for gap in gaps)


# Workers


def test_a_pause_reaches_all_workers_a_run_one_and_a_stop_ends_the_supervisor(
    host: Host,
) -> None:
    daemon = host.start("governed", "--workers", "2")
    eventually(lambda: [row["worker"] for row in host.rows()].count(2) == 1, within=30)
    eventually(lambda: all(row["ticks"] for row in host.rows()), within=30)
    host.daemons("pause", "governed")
    eventually(lambda: [r["state"] for r in host.rows()] == ["paused", "paused"], within=20)
    before = ticks(daemon)
    host.daemons("run", "governed", "--force")
    eventually(lambda: ticks(daemon) == before + 1, within=20)
    no_tick_in(daemon, 1)
    assert "2 processes will stop" in host.daemons("stop", "governed")
    assert daemon.wait(30) == 0
    assert host.rows() == []


def test_a_stop_of_one_daemon_leaves_the_others_of_its_supervisor(host: Host) -> None:
    daemon = host.start("governed", "governed_jobs")
    eventually(lambda: len(host.rows()) == 2, within=30)
    host.daemons("stop", "governed_jobs")
    daemon.wait_for("governed_jobs has ended: ordered by", within=30)
    ticks_go_on(daemon)
    assert len(host.rows()) == 1
    assert daemon.stop(within=30) == 0


# Bad input


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("pause", "governd"), 2, "there is no daemon 'governd'; did you mean governed"),
        (("status", "governd"), 2, "there is no daemon 'governd'"),
        (("status", "--check", "governd"), 2, "there is no daemon 'governd'"),
        (("status", "--check", "--watch"), 2, "--check looks once"),
        (("status", "--watch", "soon"), 2, "watch"),
        (("pause", "governed_jobs", "--job", "nope"), 2, "has no job 'nope': its jobs are often"),
        (("run", "governed", "--job", "nope"), 2, "has no job 'nope': it has no jobs"),
        (("pause", "governed", "--until", "2020-01-01"), 2, "--until 2020-01-01 has passed"),
        (("pause", "governed", "--until", "0s"), 2, "--until 0s has passed"),
        (("pause", "governed", "--until", "later"), 2, "--until takes a time such as 18:00"),
        (("resume", "governed"), 1, "governed is not paused"),
        (("run", "governed"), 1, "no process of governed takes orders"),
        (("stop", "governed"), 1, "no process of governed takes orders"),
        (("stop", "governd"), 2, "there is no daemon 'governd'"),
        (("reload", "governed", "--everywhere"), 1, "no process of governed takes orders"),
        (("reload", "governd", "--everywhere"), 2, "there is no daemon 'governd'"),
        (("resume", "governed_jobs", "--job", "nope"), 2, "has no job 'nope'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    host: Host, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    said = host.daemons(*arguments, code=code)
    assert sentence in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "sentence"),
    [({"status": "yes"}, "DAEMONKIT['status'] must be True or False, not 'yes'")],
)
def test_a_setting_that_makes_no_sense_ends_a_daemon_with_78(
    project: Project, said: object, sentence: str
) -> None:
    project.module("depot_settings.py", f"from config.settings import *\nDAEMONKIT = {said!r}")
    ended = project.manage("run_daemon", "time.time", "--every", "1s")
    assert ended.wait(30) == Exit.MISCONFIGURED
    assert sentence in ended.stderr


def test_an_expectation_that_is_no_time_is_refused(host: Host) -> None:
    daemon = host.start("governed", EXPECT="-1")
    assert daemon.wait(30) == Exit.USAGE
    assert "expect_success_within takes a duration such as 30s" in daemon.stderr
