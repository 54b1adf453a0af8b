"""Lives of daemons with jobs: real processes, real signals, real servers, and kills in between."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import django
import pytest

from lab.processes import Daemon
from lab.servers import Server
from lab.servers.base import free_port
from lab.waiting import eventually
from tests.kit.processes import LIVES, Live, Manage, migrate
from tests.kit.servers import MakeProxy
from tests.kit.sessions import notes

Start = Callable[..., Daemon]


@pytest.fixture
def start(manage: Manage, live: Live, server: Server) -> Start:
    """``start("several", "--job", "slow")``: a daemon of tests/lives, on a migrated server."""
    migrate(manage, server)
    server.execute("DELETE FROM daemonkit_run")
    return partial(live, on=server)


def written(server: Server) -> list[tuple[str, str, str]]:
    query = "SELECT job, status, reason FROM daemonkit_run ORDER BY due, job"
    return [(row[0], row[1], row[2]) for row in server.execute(query)]


# Stop


def test_sigterm_lets_running_jobs_finish_and_leaves_no_session(
    start: Start, server: Server
) -> None:
    daemon = start("several", "--job", "slow")
    daemon.wait_for("in the middle", within=30)
    assert daemon.stop(within=30) == 0
    assert "committed" in daemon.stdout
    assert notes(server) == ["begun", "done"]
    assert written(server) == [("slow", "ran", "")]
    eventually(lambda: not server.sessions())


def test_an_idle_daemon_with_jobs_ends_at_once(start: Start) -> None:
    daemon = start("several", "--job", "counting")
    daemon.wait_for("threads", within=30)
    asked = time.monotonic()
    assert daemon.stop(within=30) == 0
    assert time.monotonic() - asked < 5


def test_stop_timeout_cuts_a_job_and_rolls_it_back(start: Start, server: Server) -> None:
    daemon = start("several", "--job", "slow", "--seconds", "60", "--stop-timeout", "300ms")
    daemon.wait_for("in the middle", within=30)
    eventually(lambda: "sleep(60" in str(server.session_rows()).lower())
    assert daemon.stop(within=30) == 70
    assert "stop_timeout of 0.3 s ran out" in daemon.stderr
    server.kill_sessions()
    assert notes(server) == []


def test_a_job_that_ignores_everything_ends_with_the_process(start: Start, server: Server) -> None:
    daemon = start("several", "--job", "hanging", "--stop-timeout", "200ms")
    daemon.wait_for("hanging now", within=30)
    assert daemon.stop(within=30) == 70
    assert written(server) == [("hanging", "failed", "forced")]
    ((error,),) = server.execute("SELECT error FROM daemonkit_run")
    assert error == "forced to end: stop_timeout of 0.2 s ran out"


def test_an_end_forced_by_a_tick_timeout_is_recorded_for_every_job_and_so_are_skips(
    start: Start, server: Server
) -> None:
    daemon = start("several", "--job", "stuck", "--job", "hanging", "--pulse", "1500ms")
    daemon.wait_for("hanging now", within=30)
    assert daemon.wait(60) == 70
    rows = written(server)
    assert ("hanging", "failed", "forced") in rows
    assert ("stuck", "failed", "forced") in rows
    assert rows.count(("stuck", "skipped", "overlap")) >= 1
    assert "job stuck past its tick_timeout did not return" in daemon.stderr
    assert "several stuck is past its tick_timeout of 1s" in daemon.stderr
    again = start("several", "--job", "stuck")
    eventually(lambda: len(written(server)) > len(rows), within=30)
    again.signal(signal.SIGKILL)
    again.wait(30)
    assert [row for row in written(server) if row in rows][: len(rows)] == rows


def test_a_job_past_its_tick_timeout_is_cut_and_the_others_go_on(
    start: Start, server: Server
) -> None:
    daemon = start("several", "--job", "overdue", "--job", "counting", "--pulse", "5s")
    daemon.wait_for("overdue begins", within=30)
    daemon.wait_for("past its tick_timeout of 300ms", within=30)
    daemon.wait_for("several overdue tick 1 failed", within=30)
    assert daemon.stop(within=30) == 0
    assert [row[:2] for row in written(server)] == [("counting", "ran"), ("overdue", "failed")]
    server.kill_sessions()


def test_system_exit_in_a_job_ends_the_process_with_its_code(start: Start, server: Server) -> None:
    daemon = start("several", "--job", "leaving")
    assert daemon.wait(30) == 3
    assert written(server) == [("leaving", "failed", "")]


def test_keyboard_interrupt_in_a_job_ends_the_process_as_it_does_in_a_loop(
    start: Start, server: Server
) -> None:
    job, loop = start("several", "--job", "interrupted"), start("interrupted")
    assert job.wait(30) == loop.wait(30) == -signal.SIGINT  # which a shell shows as 130
    assert written(server) == [("interrupted", "failed", "")]


def test_once_runs_one_job_now_and_fails_with_1(start: Start) -> None:
    assert start("several", "--job", "counting", "--once").wait(30) == 0
    unknown = start("several", "--job", "nothing", "--once")
    assert unknown.wait(30) == 2
    assert "there is no job 'nothing'; there are slow, overdue" in unknown.stderr


def test_jobs_go_on_when_the_servers_sessions_are_killed(start: Start, server: Server) -> None:
    daemon = start("racing", CONN_MAX_AGE="none")
    eventually(lambda: len(notes(server)) >= 3, within=30)
    for _ in range(3):
        before = len(notes(server))
        server.kill_sessions()
        eventually(lambda before=before: len(notes(server)) >= before + 2, within=30)
    assert daemon.stop(within=30) == 0
    eventually(lambda: not server.sessions())


# Exclusive: processes that race for the same due times


ENOUGH = 5


def ran(server: Server) -> int:
    query = "SELECT count(*) FROM daemonkit_run WHERE daemon = 'racing' AND status = 'ran'"
    return int(server.execute(query)[0][0])


def race(
    start: Start, server: Server, how_many: int, seconds: float, *arguments: str, **env: str
) -> None:
    """Run ``how_many`` processes that race, and kill one after the other at random moments."""
    chance = random.Random(how_many)
    racers = [start("racing", *arguments, **env) for _ in range(how_many)]
    for racer in racers:
        racer.wait_for("open", within=60)
    over, kills = time.monotonic() + seconds, 0
    while time.monotonic() < over:
        racers[0].wait_for("open", within=60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            racers[0].process.wait(chance.uniform(0.0, 0.8))
        victim = racers.pop(0)
        # Never all: after a long time without a process only the newest due times have rows.
        eventually(lambda: any("open" in each.lines for each in racers), within=60)
        victim.signal(signal.SIGKILL)
        victim.wait(30)
        kills += 1
        racers.append(start("racing", *arguments, **env))
    for racer in racers:
        racer.wait_for("open", within=60)
    eventually(lambda: ran(server) >= ENOUGH, within=60)
    for racer in racers:
        racer.signal(signal.SIGTERM)
    for racer in racers:
        assert racer.wait(60) == 0, racer.output
    assert kills >= 3


def check(server: Server, done: list[str]) -> None:
    """Assert that no due time ran twice, or was lost without a row that says why."""
    doubled = {due: times for due, times in Counter(done).items() if times > 1}
    assert not doubled
    query = "SELECT due, status, reason FROM daemonkit_run WHERE daemon = 'racing' ORDER BY due"
    rows = [(row[0].timestamp(), row[1], row[2]) for row in server.execute(query)]
    dues = [round(due * 4) for due, _, _ in rows]  # quarters of a second
    assert dues == list(range(dues[0], dues[-1] + 1)), "due times without a row"
    states = Counter(status for _, status, _ in rows)
    assert states["ran"] >= ENOUGH
    assert states["ran"] <= len(done) <= states["ran"] + states["running"] + states["failed"]
    assert all(reason for _, status, reason in rows if status == "skipped")


@pytest.mark.parametrize("how_many", [2, 4])
def test_each_exclusive_due_time_is_run_by_one_process_even_if_processes_are_killed(
    start: Start, server: Server, how_many: int
) -> None:
    settings = json.dumps({"keep_runs": 1000})
    race(start, server, how_many, 8, DAEMONKIT=settings)
    server.kill_sessions()
    check(server, notes(server))


if django.VERSION >= (6, 0):  # django.tasks came with it

    def test_each_due_time_is_handed_to_django_tasks_once(start: Start, server: Server) -> None:
        race(start, server, 2, 6, "--to", "tasks", DAEMONKIT=json.dumps({"keep_runs": 1000}))
        server.kill_sessions()
        check(server, notes(server))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The URL of a private Redis."""
    if not (binary := shutil.which("redis-server")):
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    pytest.importorskip("celery")
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "dir": tmp_path}
    command = [binary, *(part for name, value in options.items() for part in (f"--{name}", value))]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(20)


def test_each_due_time_is_handed_to_celery_once(start: Start, server: Server, redis: str) -> None:
    import redis as client

    connection = client.Redis.from_url(redis)
    eventually(lambda: answers(connection), within=20)
    race(start, server, 2, 6, "--to", "celery", CELERY_BROKER_URL=redis,
         DAEMONKIT=json.dumps({"keep_runs": 1000}))  # fmt: skip
    server.kill_sessions()
    messages = [json.loads(message) for message in connection.lrange("celery", 0, -1)]
    connection.close()
    assert {message["headers"]["task"] for message in messages} == {"shop.mail_report"}
    check(server, [re.findall(r"'(.+?)'", each["headers"]["argsrepr"])[0] for each in messages])


def answers(connection: object) -> bool:
    with contextlib.suppress(Exception):
        return bool(connection.ping())  # type: ignore[attr-defined]
    return False


# Sessions of the process's own


@pytest.mark.parametrize("workers", [1, 8])
def test_a_process_has_at_most_two_sessions_of_its_own(
    start: Start, server: Server, workers: int
) -> None:
    """Its jobs use no database here, so all sessions are for claims and the ledger."""
    alone = ["--leader"] if workers == 1 else ["--workers", "8"]
    daemon = start("several", "--job", "alone", *alone)
    eventually(lambda: len(written(server)) >= 5 * workers, within=60)
    assert 2 <= max(len(server.sessions()) for _ in range(20)) <= 2 * workers
    assert daemon.stop(within=60) == 0
    eventually(lambda: not server.sessions())


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_the_sessions_of_a_daemon_are_named_on_postgresql(start: Start, server: Server) -> None:
    daemon = start("several", "--job", "slow", "--job", "alone", "--seconds", "30")
    daemon.wait_for("in the middle", within=30)
    shown = server.execute(
        "SELECT DISTINCT application_name FROM pg_stat_activity WHERE usename = 'daemonkit'"
    )
    assert shown == [("daemonkit several",)]
    daemon.signal(signal.SIGKILL)
    daemon.wait(30)
    server.kill_sessions()


def test_a_slow_write_of_the_ledger_delays_no_renewal(start: Start, server: Server) -> None:
    server.execute("DELETE FROM daemonkit_lease")
    daemon = start("several", "--leader", "--lease", "3s", "--job", "ticking")
    daemon.wait_for("leads, epoch 1", within=30)
    eventually(lambda: written(server), within=30)
    look = "SELECT renewals, epoch FROM daemonkit_lease"
    ((before, _),) = server.execute(look)
    with locked(server, "daemonkit_run"):
        daemon.wait_for("the ledger of several cannot be written", within=60)
        eventually(lambda: server.execute(look)[0][0] >= before + 8, within=60)
    assert server.execute(look)[0][1] == 1
    assert daemon.stop(within=30) == 0


@contextlib.contextmanager
def locked(server: Server, table: str) -> Iterator[None]:
    """Lock the table against writes during the block."""
    connection = server.connect()
    try:
        cursor = connection.cursor()
        if server.vendor == "postgresql":
            cursor.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE")
        else:
            cursor.execute(f"LOCK TABLES {table} READ")
        yield
    finally:
        connection.close()


def test_sigterm_ends_a_daemon_whose_packets_are_dropped_and_logs_the_missing_rows(
    start: Start, server: Server, proxy: MakeProxy
) -> None:
    through = proxy(server)
    daemon = start("several", "--job", "alone", DATABASE_URL=server.url_through(through.port))
    daemon.wait_for(re.compile("^alone$"), within=30)
    through.drop()
    daemon.wait_for("did not run: ledger", within=60)
    assert daemon.stop(within=30) == 0
    assert re.search(r"the ledger of several lacks its last \d+ rows", daemon.stderr)
    assert "Traceback" not in daemon.output
    server.kill_sessions()


# Workers, and a leader


def test_several_workers_share_exclusive_jobs(start: Start, server: Server) -> None:
    daemon = start("racing", "--workers", "2")
    eventually(lambda: len(notes(server)) >= 5, within=60)
    assert daemon.stop(within=60) == 0
    assert len(notes(server)) == len(set(notes(server)))
    pids = server.execute("SELECT DISTINCT pid FROM daemonkit_run")
    assert 1 <= len(pids) <= 2
    refused = start("several", "--workers", "2")
    assert refused.wait(30) == 2
    assert "per_worker" in refused.stderr


def moments(daemon: Daemon) -> list[float]:
    """When the job that is called ticking ran, on the monotonic clock."""
    found = (re.match(r"ticking ([\d.]+)", line) for line in daemon.stdout.splitlines())
    return [float(match[1]) for match in found if match]


def test_only_the_leader_runs_jobs_and_the_others_record_why_they_do_not(
    start: Start, server: Server
) -> None:
    server.execute("DELETE FROM daemonkit_lease")
    first = start("several", "--leader", "--job", "ticking")
    first.wait_for("ticking", within=30)
    second = start("several", "--leader", "--job", "ticking")
    second.wait_for("did not run: not leader", within=30)
    assert first.stop(within=30) == 0
    second.wait_for(re.compile(r"^ticking \d"), within=30)
    assert second.stop(within=30) == 0
    assert max(moments(first)) < min(moments(second))


def test_the_schedules_of_jobs_restart_with_each_term_of_their_leader(
    start: Start, server: Server
) -> None:
    """An interval is due at once, and a poller does not sleep on until its next pulse."""
    server.execute("DELETE FROM daemonkit_lease")
    options = ("led", "--leader", "--lease", "3s", "--pulse", "30s")
    first = start(*options)
    second = None
    for epoch in (1, 2):
        first.wait_for(f"led leads, epoch {epoch}", within=30)
        first.wait_for("hourly ran", within=5)
        first.wait_for("polled", within=5)
        if epoch == 1:
            second = start(*options)
            second.wait_for("stands by", within=30)
            assert first.stop(within=30) == 0
            first = second
    assert first.stop(within=30) == 0


def test_once_under_a_leader_waits_for_one_election(start: Start, server: Server) -> None:
    server.execute("DELETE FROM daemonkit_lease")
    daemon = start("led", "--leader", "--once", "--pulse", "30s")
    assert daemon.wait(within=15) == 0
    assert "hourly ran" in daemon.stdout


def test_sighup_lets_jobs_finish_and_the_process_re_executes_itself(
    start: Start, server: Server
) -> None:
    daemon = start("several", "--job", "slow", "--job", "ticking")
    daemon.wait_for("in the middle", within=30)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("in the middle", within=60, count=2)
    daemon.wait_for("committed", within=30, count=2)
    assert daemon.stop(within=30) == 0
    assert daemon.stdout.index("committed") < daemon.stdout.rindex("in the middle")
    assert notes(server) == ["begun", "done"] * 2
    eventually(lambda: not server.sessions())


# Commands


def test_runs_and_next_of_a_daemon_with_jobs(manage: Manage) -> None:
    assert manage("migrate", "-v", "0").wait(60) == 0
    once = manage("run_daemon", "housekeeping", "--once", "--job", "expire_baskets")
    assert once.wait(30) == 0, once.output
    runs = manage("daemons", "runs", "housekeeping")
    assert runs.wait(30) == 0
    (line,) = runs.stdout.splitlines()
    assert re.search(r"^\S+ \S+  housekeeping  expire_baskets  ran ", line)
    as_json = manage("daemons", "runs", "--format", "json")
    assert as_json.wait(30) == 0
    (row,) = json.loads(as_json.stdout)
    assert (row["job"], row["status"], row["reason"]) == ("expire_baskets", "ran", "")
    coming = manage("daemons", "next", "housekeeping", "--hours", "24")
    assert coming.wait(30) == 0
    jobs = {line.split()[-1] for line in coming.stdout.splitlines()}
    assert {"expire_baskets", "average_prices"} <= jobs
    coming = manage("daemons", "next", "housekeeping", "--format", "json")
    assert coming.wait(30) == 0
    assert json.loads(coming.stdout)["due"][0].keys() == {"due", "job"}


def test_runs_without_a_ledger_or_for_an_unknown_daemon_is_one_sentence(manage: Manage) -> None:
    runs = manage("daemons", "runs")
    assert runs.wait(30) == 78
    assert "the ledger cannot be read" in runs.stderr
    assert "Traceback" not in runs.output
    assert manage("daemons", "runs", "nobody").wait(30) == 2


def test_an_exclusive_job_without_the_migration_is_one_sentence_and_78(
    manage: Manage,
) -> None:
    daemon = manage("run_daemon", "several", "--job", "alone", manage_py=LIVES)
    assert daemon.wait(30) == 78
    sentence, *others = [line for line in daemon.output.splitlines() if "ledger" in line]
    assert sentence.startswith("CommandError: several has jobs that need the ledger")
    assert sentence.endswith("run `manage.py migrate daemonkit`")
    assert not others
    assert "dropped" not in daemon.output
    assert "Traceback" not in daemon.output


def test_a_plain_job_without_the_migration_runs(manage: Manage) -> None:
    daemon = manage("run_daemon", "several", "--job", "counting", "--max-ticks", "1",
                    manage_py=LIVES)  # fmt: skip
    assert daemon.wait(30) == 0
    assert "threads" in daemon.stdout
    assert "Traceback" not in daemon.output


def test_a_wall_clock_set_back_an_hour_stops_no_job(tmp_path: Path) -> None:
    """libfaketime sets the wall clock of a real process, but not its monotonic clock."""
    library = next(iter(Path("/usr/lib").glob("**/libfaketime.so.1")), None)
    if library is None:
        pytest.skip("libfaketime is not installed (Debian: apt install faketime)")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    daemon = Daemon(
        [sys.executable, str(LIVES), "run_daemon", "several", "--job", "ticking"],
        env={
            "DATABASE_URL": f"sqlite:///{tmp_path / 'site.sqlite3'}",
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
    )
    try:
        for offset in ("+0", "-3600", "+3600"):
            clock.write_text(offset)
            said = len(daemon.lines)
            eventually(lambda said=said: len(daemon.lines) >= said + 5, within=30)
        assert daemon.stop(within=30) == 0
        runs = moments(daemon)
        gaps = [later - earlier for earlier, later in pairwise(runs)]
        turns = (runs[-1] - daemon.started) / 0.2
        assert len(runs) <= turns + 1  # no burst
        assert max(gaps) < 5  # no silence
    finally:
        daemon.end()
