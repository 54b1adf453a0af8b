"""Lives of daemons with ``add_jobs()``: real processes, real signals, real servers."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable

import pytest

from lab.processes import Daemon
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import LIVES, Live, Manage, migrate
from tests.kit.sessions import kill, notes

PATIENT = 30.0

Start = Callable[..., Daemon]


@pytest.fixture
def start(manage: Manage, live: Live, server: Server) -> Start:
    """``start("slow", "asking", options=[...])``: the daemon ``added`` with these jobs."""
    migrate(manage, server)

    def run(*jobs: str, options: tuple[str, ...] = (), **env: str) -> Daemon:
        adds = [f"--adds={job}" for job in jobs]
        return live("added", *adds, *options, on=server, **env)

    return run


def written(server: Server, job: str) -> list[str]:
    """The states of a job's rows in the ledger."""
    query = f"SELECT status FROM daemonkit_run WHERE job = '{job}' ORDER BY due"
    return [str(row[0]) for row in server.execute(query)]


def test_sigterm_lets_an_added_job_finish_and_leaves_no_session(
    start: Start, server: Server
) -> None:
    daemon = start("slow")
    daemon.wait_for("in the middle", within=PATIENT)
    assert daemon.stop(within=PATIENT) == 0
    assert notes(server) == ["begun", "done"]
    assert written(server, "slow") == ["ran"]
    eventually(lambda: not server.sessions())


def test_sighup_lets_an_added_job_finish_and_adds_it_again_in_the_new_process(
    start: Start, server: Server
) -> None:
    daemon = start("slow")
    daemon.wait_for("in the middle", within=PATIENT)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("in the middle", within=60, count=2)
    assert daemon.stop(within=PATIENT) == 0
    assert daemon.stdout.index("committed") < daemon.stdout.rindex("in the middle")
    assert notes(server) == ["begun", "done"] * 2
    eventually(lambda: not server.sessions())


def test_the_run_after_its_idle_session_was_killed_has_a_healthy_connection(
    start: Start, server: Server
) -> None:
    daemon = start("asking", CONN_MAX_AGE="none")
    eventually(lambda: written(server, "asking"), within=PATIENT)  # so a run is over
    line = daemon.wait_for("session ", within=PATIENT)
    kill(server, int(line.split()[1]))
    daemon.wait_for(re.compile(f"session (?!{line.split()[1]}$)"), within=PATIENT)
    assert daemon.stop(within=PATIENT) == 0
    assert "failed" not in daemon.stderr
    assert set(written(server, "asking")) == {"ran"}


def test_an_added_job_past_its_time_limit_is_cut_and_the_others_go_on(
    start: Start, server: Server
) -> None:
    daemon = start("overdue", "counting", options=("--tick-timeout", "300ms", "--pulse", "5s"))
    daemon.wait_for("overdue begins", within=PATIENT)
    daemon.wait_for("overdue tick 1 failed", within=PATIENT)
    before = daemon.so_far.count("counted")
    daemon.wait_for("counted", within=PATIENT, count=before + 2)
    assert daemon.stop(within=PATIENT) == 0
    assert written(server, "overdue")[0] == "failed"
    assert "failed" not in written(server, "counting")
    server.kill_sessions()


def test_a_thread_of_the_process_adds_and_removes_jobs(start: Start) -> None:
    daemon = start("changing", "counting")
    daemon.wait_for("changed", within=PATIENT)
    before = daemon.so_far.count("counted")
    daemon.wait_for("counted", within=PATIENT, count=before + 3)
    assert daemon.stop(within=PATIENT) == 0
    *_, removed = map(float, re.findall(r"removed ([\d.]+)", daemon.stdout))
    dues = [float(due) for due in re.findall(r"late due ([\d.]+)", daemon.stdout)]
    assert len(dues) >= 3
    assert max(dues) <= removed


def test_two_processes_run_each_due_time_of_an_exclusive_added_job_once(
    start: Start, server: Server
) -> None:
    daemons = [start("turn"), start("turn")]
    for daemon in daemons:
        daemon.wait_for("started", within=PATIENT)
    before = len(notes(server))
    eventually(lambda: len(notes(server)) >= before + 6, within=PATIENT)
    for daemon in daemons:
        assert daemon.stop(within=PATIENT) == 0
    dues = Counter(note.split()[1] for note in notes(server))
    assert set(dues.values()) == {1}


def test_only_the_leader_runs_added_jobs_until_it_is_killed(start: Start, server: Server) -> None:
    first = start("led", options=("--leader",))
    eventually(lambda: notes(server), within=PATIENT)
    second = start("led", options=("--leader",))
    second.wait_for("started", within=PATIENT)
    before = len(notes(server))
    eventually(lambda: len(notes(server)) >= before + 5, within=PATIENT)
    assert {note.split()[0] for note in notes(server)} == {str(first.pid)}
    first.signal(signal.SIGKILL)
    first.wait(PATIENT)
    eventually(lambda: notes(server)[-1].split()[0] == str(second.pid), within=PATIENT)
    assert second.stop(within=PATIENT) == 0


# Commands


def test_an_added_job_is_paused_by_its_id_and_the_others_go_on(
    start: Start, server: Server, manage: Manage
) -> None:
    def daemons(*arguments: str) -> str:
        env: dict[str, str | None] = {"DATABASE_URL": server.url}
        command = manage("daemons", *arguments, manage_py=LIVES, env=env)
        assert command.wait(PATIENT) == 0, command.output
        return command.stdout

    daemon = start("counting", "asking")
    daemon.wait_for("counted", within=PATIENT)
    daemons("pause", "added", "--job", "counting")
    eventually(lambda: "skipped" in written(server, "counting"), within=PATIENT)
    before = daemon.so_far.count("session ")
    daemon.wait_for("session ", within=PATIENT, count=before + 2)
    daemons("resume", "added", "--job", "counting")
    daemon.wait_for("counting is no longer paused", within=PATIENT)
    before = daemon.so_far.count("counted")
    daemon.wait_for("counted", within=PATIENT, count=before + 2)
    assert daemon.stop(within=PATIENT) == 0
    assert "skipped: paused" in daemons("runs", "added", "--job", "counting")
    assert set(written(server, "asking")) == {"ran"}


def test_commands_that_know_no_added_jobs_say_so(manage: Manage) -> None:
    assert manage("migrate", "-v", "0", manage_py=LIVES).wait(60) == 0
    for job in ((), ("--job", "counting")):
        order = manage("daemons", "run", "added", *job, manage_py=LIVES)
        assert order.wait(PATIENT) == 2
        assert "jobs of add_jobs() take no order to run" in order.stderr
    chosen = manage("run_daemon", "added", "--job", "counting", "--once", manage_py=LIVES)
    assert chosen.wait(PATIENT) == 2
    assert "there is no job 'counting'; --job takes no job of add_jobs()" in chosen.stderr
    coming = manage("daemons", "next", "added", manage_py=LIVES)
    assert coming.wait(PATIENT) == 0, coming.output
    assert "known only to the daemon while it runs" in coming.stdout
    listed = manage("daemons", "list", manage_py=LIVES)
    assert listed.wait(PATIENT) == 0
    assert "what add_jobs() adds" in listed.stdout
    unit = manage("daemons", "unit", "added", manage_py=LIVES)
    assert unit.wait(PATIENT) == 0, unit.output
