"""Several workers with real servers, forks and signals. No process is left over."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from daemonkit import Exit
from lab.processes import Daemon, child_environment, is_alive
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import LIVES, Live
from tests.kit.projects import Project
from tests.kit.sessions import notes

STARTED = re.compile(r"^\S+ \S+ INFO (\S+) started, pid (\d+)$")


@pytest.fixture
def live(live: Live) -> Live:
    """``live("tagged", "--workers", "4", on=server)``: start a supervisor of tests/lives.

    Python's warning about a fork with threads is an error.
    """
    return functools.partial(
        live, on="sqlite://:memory:", PYTHONWARNINGS="error::DeprecationWarning"
    )


@pytest.fixture(params=["mariadb", "postgres", "postgres pool"])
def settings(request: pytest.FixtureRequest) -> dict[str, Server | str | None]:
    """Arguments for ``live()``: each server in turn, and PostgreSQL with Django's pool."""
    kind, _, pool = request.param.partition(" ")
    return {"on": request.getfixturevalue(kind), "POOL": pool or None}


@pytest.fixture(autouse=True)
def no_zombies() -> Iterator[None]:
    yield
    eventually(
        lambda: not list(zombies()),
        what="the servers' zombies are reaped soon, a daemon's must not exist",
    )


def zombies() -> Iterator[psutil.Process]:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                yield child


def started(daemon: Daemon, label: str = "") -> list[int]:
    """Return the pids of all workers that were started, in the order of their starts."""
    found = [match for line in daemon.lines if (match := STARTED.match(line))]
    return [int(match[2]) for match in found if label in ("", match[1])]


def ready(daemon: Daemon, within: float = 20) -> list[int]:
    """Wait until the supervisor says that all workers are ready. Returns their pids."""
    daemon.wait_for("supervisor is ready", within=within)
    return started(daemon)


def ticks_of(daemon: Daemon, pid: int) -> int:
    return daemon.so_far.count(f" in {pid} on session ")


# Running together


def test_each_worker_has_its_own_session_and_the_parent_has_none(
    live: Live, settings: dict[str, Server | str | None]
) -> None:
    daemon = live("tagged", "--workers", "4", "--writes", CONN_MAX_AGE=None, **settings)
    pids = ready(daemon)
    assert len(pids) == 4
    eventually(lambda: all(ticks_of(daemon, pid) >= 20 for pid in pids), within=30)
    server = settings["on"]
    assert isinstance(server, Server)
    tasks = len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))
    sockets = psutil.Process(daemon.pid).net_connections("all")
    assert (tasks, sockets) == (1, [])
    assert daemon.stop(within=20) == 0
    assert "FOREIGN ROW" not in daemon.output
    assert "Traceback" not in daemon.output
    sessions = set(re.findall(r"in (\d+) on session (\d+)", daemon.stdout))
    assert len({session for _, session in sessions}) == len(sessions)  # all are different
    assert sorted(re.findall(r"closed (\d)", daemon.stdout)) == ["1", "2", "3", "4"]
    written = notes(server)
    assert len(set(written)) == len(written)
    assert {int(note.split("-")[1]) for note in written} == set(pids)


def test_a_session_opened_before_the_forks_is_closed(
    live: Live, settings: dict[str, Server | str | None]
) -> None:
    daemon = live("tagged", "--workers", "2", "--idle", "60", LIVES_ASK_EARLY="1", **settings)
    first = daemon.wait_for("asked early on").rpartition(" ")[2]
    ready(daemon)
    daemon.wait_for("tick of", count=2, within=20)
    server = settings["on"]
    assert isinstance(server, Server)
    eventually(lambda: int(first) not in server.sessions())
    assert psutil.Process(daemon.pid).net_connections("all") == []
    assert len(list(Path(f"/proc/{daemon.pid}/task").iterdir())) == 1
    assert daemon.stop(within=20) == 0


def test_every_line_names_its_worker(live: Live) -> None:
    daemon = live("tagged", "steady", "--every", "200ms")
    ready(daemon)
    daemon.wait_for("session 0", count=6, within=20)
    assert daemon.stop(within=5) == 0
    speakers = {line.partition(" | ")[0] for line in daemon.stdout.splitlines()}
    assert speakers == {"tagged", "steady"}
    logged = [line for line in daemon.stderr.splitlines() if "supervisor" not in line]
    assert all(re.match(r"(tagged|steady) \| ", line) or "pid " in line for line in logged)


def test_several_daemons_run_in_a_process_each(live: Live, mariadb: Server) -> None:
    daemon = live("tagged", "steady", "hasty", "--every", "100ms", on=mariadb)
    pids = ready(daemon)
    assert len(set(pids)) == 3
    for name in ("tagged", "steady", "hasty"):
        assert len(started(daemon, name)) == 1
        daemon.wait_for(re.compile(rf"^{name} \| .*session"), count=2, within=20)
    assert daemon.stop() == 0


# Crashes


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_dies_is_replaced_and_the_others_are_not_affected(
    live: Live, server: Server, signum: signal.Signals
) -> None:
    daemon = live("tagged", "--workers", "3", on=server)
    pids = ready(daemon)
    victim = psutil.Process(pids[1])
    victim.send_signal(signum)
    eventually(lambda: len(started(daemon)) == 4, within=10)
    successor = started(daemon)[-1]
    eventually(lambda: ticks_of(daemon, successor) >= 3, within=20)
    how = "ended with exit code 0" if signum == signal.SIGTERM else f"ended by {signum.name}"
    daemon.wait_for(re.compile(rf"tagged\.2 \(pid {victim.pid}\) .*{how} after \d+ ticks"))
    before = ticks_of(daemon, pids[0])
    eventually(lambda: ticks_of(daemon, pids[0]) > before + 3)
    assert daemon.stop(within=20) == 0
    assert len(started(daemon)) == 4
    assert "FOREIGN ROW" not in daemon.output


def test_killing_a_worker_does_not_affect_the_sessions_of_others(
    live: Live, settings: dict[str, Server | str | None]
) -> None:
    """Workers are killed one after the other, at any moment of a tick: other sessions stay open."""
    daemon = live("tagged", "--workers", "2", "--writes", **settings)
    pids = ready(daemon)
    for _ in range(3):
        victim = started(daemon)[-1]
        eventually(lambda pid=victim: ticks_of(daemon, pid) >= 3, within=20)
        psutil.Process(victim).kill()
        eventually(lambda last=victim: started(daemon)[-1] != last, within=10)
    eventually(lambda: ticks_of(daemon, pids[0]) >= 10, within=20)
    assert daemon.stop(within=20) == 0
    assert "failed" not in daemon.stderr.replace("0 failed", "")


def test_workers_that_die_at_once_are_started_at_growing_intervals(live: Live) -> None:
    daemon = live("tagged", "--workers", "2", "--dies", "lifespan:3")
    daemon.wait_for("exit code 3", count=8, within=30)
    assert daemon.stop(within=5) == 0
    pauses = re.findall(r"tagged.1 .* exit code 3 .* starts in ([\d.]+) s", daemon.stderr)
    assert [float(pause) for pause in pauses] == sorted(map(float, pauses))
    assert float(pauses[-1]) >= 0.4


def test_a_worker_that_cannot_start_ends_the_supervisor_with_its_exit_code(live: Live) -> None:
    daemon = live("tagged", "--workers", "2", "--dies", "lifespan:78")
    assert daemon.wait(20) == 78
    assert "cannot start: it ended with exit code 78" in daemon.stderr.splitlines()[-1]
    assert len(started(daemon)) == 2


def test_a_daemon_that_cannot_start_ends_the_other_daemons_too(live: Live) -> None:
    daemon = live("steady", "tagged", "needy", LIVES_MISCONFIGURED="tagged")
    assert daemon.wait(20) == 78
    assert "tagged cannot start" in daemon.stderr


def test_exit_code_78_after_a_success_is_followed_by_a_restart(live: Live) -> None:
    """A password that is changed under running workers must not end those that still work."""
    daemon = live("tagged", "--workers", "2", "--dies", "second:78")
    daemon.wait_for("exit code 78", count=2, within=30)
    assert daemon.is_running
    assert daemon.stop(within=20) == 0


# Silence


def test_a_stopped_worker_is_ended_with_its_stacks_and_replaced(
    live: Live, mariadb: Server
) -> None:
    arguments = ["--workers", "2", "--pulse", "200ms", "--tick-timeout", "1s"]
    daemon = live("tagged", *arguments, "--writes", on=mariadb)
    pids = ready(daemon)
    eventually(lambda: ticks_of(daemon, pids[0]) >= 2, within=20)
    psutil.Process(pids[0]).suspend()
    daemon.wait_for("tagged.1 (pid", within=30)
    daemon.wait_for("no sign of life", within=30)
    # SIGABRT, or the timer of faulthandler, which expired while the process was stopped.
    # A log line of the supervisor may come between two words of faulthandler's.
    daemon.wait_for(re.compile("Fatal Python error: |Timeout"), within=10)
    # On a busy machine SIGKILL may follow before the process has ended by SIGABRT.
    ended = r"1 \(pid \d+\) (was ended by SIG(ABRT|KILL)|ended with exit code 1)"
    daemon.wait_for(re.compile(ended), within=30)
    eventually(lambda: len(started(daemon)) == 3, within=30)
    eventually(lambda: ticks_of(daemon, started(daemon)[-1]) >= 3, within=30)
    assert daemon.stop(within=20) == 0
    mariadb.kill_sessions()


def test_an_idle_worker_without_a_pulse_is_noticed_even_with_a_long_tick_timeout(
    live: Live,
) -> None:
    daemon = live("napping", "--workers", "2", "--pulse", "200ms")
    pids = ready(daemon)
    daemon.wait_for("waits", count=2)
    psutil.Process(pids[1]).suspend()
    daemon.wait_for("no sign of life for 5 s", within=30)
    eventually(lambda: len(started(daemon)) == 3, within=10)
    assert daemon.stop(within=20) == 0


def test_a_worker_whose_watcher_cannot_get_pythons_lock_is_ended(live: Live) -> None:
    """C code holds Python's lock, so no thread of that process can act."""
    arguments = ["--pulse", "200ms", "--tick-timeout", "500ms"]
    daemon = live("hogging", "steady", *arguments)
    daemon.wait_for("hogging now", within=20)
    daemon.wait_for("Timeout (0:00:00.7", within=30)  # faulthandler needs no lock
    daemon.wait_for("hogging.py", within=10)
    daemon.wait_for("ended with exit code 1", within=30)
    eventually(lambda: len(started(daemon, "hogging")) == 2, within=15)
    assert len(started(daemon, "steady")) == 1
    daemon.signal(signal.SIGTERM)
    daemon.signal_group(signal.SIGKILL)
    daemon.wait()


def test_a_long_tick_within_its_timeout_is_not_ended(live: Live) -> None:
    arguments = ["--pulse", "200ms", "--tick-timeout", "1m", "--spin", "7"]
    daemon = live("tagged", "--workers", "2", *arguments)
    daemon.wait_for("spinning", count=4, within=40)
    assert daemon.stop(within=20) == 0
    assert "no sign of life" not in daemon.stderr
    assert len(started(daemon)) == 2


# Recycling


def alive_at_each_moment(daemon: Daemon) -> Iterator[int]:
    """Yield the number of workers in the supervisor's log at each change, once it was ready."""
    alive, is_ready = 0, False
    for line in daemon.stderr.splitlines():
        alive += bool(STARTED.match(line))
        alive -= bool(re.search(r"^\S+ \S+ \w+ \S+ \(pid \d+\) (ended|was)", line))
        is_ready |= "supervisor is ready" in line
        if "supervisor stops" in line:
            return
        if is_ready:
            yield alive


@pytest.mark.parametrize(
    ("limit", "reached"),
    [
        (["--max-ticks", "5"], "max_ticks of 5 reached"),
        (["--max-seconds", "500ms"], "max_seconds of 0.5 reached"),
        (["--hog", "30", "--max-memory", "150m"], "max_memory of 150m reached"),
    ],
    ids=["max_ticks", "max_seconds", "max_memory"],
)
def test_a_limit_replaces_workers_one_at_a_time_between_two_ticks(
    live: Live, server: Server, limit: list[str], reached: str
) -> None:
    daemon = live("tagged", "--workers", "3", "--writes", *limit, on=server)
    ready(daemon)
    daemon.wait_for(reached, within=30)
    eventually(lambda: len(started(daemon)) >= 9, within=40)
    assert daemon.stop(within=20) == 0
    counts = list(alive_at_each_moment(daemon))
    assert min(counts) >= 2, daemon.stderr
    assert max(counts) <= 3
    assert "ERROR" not in daemon.stderr
    assert re.search(rf"exit code 0 after \d+ ticks \({reached}\)", daemon.stderr)


def test_the_next_worker_is_replaced_when_the_last_successor_is_ready(live: Live) -> None:
    daemon = live("tagged", "--workers", "3", "--max-ticks", "3", "--opens-in", "0.4", "--quiet")
    ready(daemon)
    daemon.wait_for("opened", count=8, within=30)
    assert daemon.stop(within=20) == 0
    moments = re.findall(r"\| (opened|closed)", daemon.stdout)
    opened = [1 if moment == "opened" else -1 for moment in moments]
    counts = [sum(opened[:number]) for number in range(3, 8)]
    assert min(counts) == 2, daemon.stdout


def test_max_ticks_is_exact_for_each_worker(live: Live) -> None:
    daemon = live("tagged", "--workers", "2", "--max-ticks", "4")
    eventually(lambda: len(started(daemon)) >= 6, within=30)
    assert daemon.stop(within=20) == 0
    replaced = re.findall(r"\(pid (\d+)\) ended .* \(max_ticks", daemon.stderr)
    assert replaced
    assert {ticks_of(daemon, int(pid)) for pid in replaced} == {4}


def test_a_daemon_without_a_further_due_time_is_not_restarted(live: Live) -> None:
    daemon = live("dated", "steady")
    daemon.wait_for("dated has ended: nothing is due any more", within=20)
    ready(daemon)
    assert len(started(daemon, "dated")) == 1
    assert daemon.stop(within=20) == 0


def test_a_supervisor_whose_daemons_have_no_further_due_time_ends_with_0(live: Live) -> None:
    daemon = live("dated", "dated_too")
    assert daemon.wait(20) == 0, daemon.output
    assert daemon.stdout.count("done once") == 2


def test_a_daemon_without_a_supervisor_ends_at_max_memory(live: Live) -> None:
    daemon = live("tagged", "--hog", "40", "--max-memory", "150m")
    assert daemon.wait(30) == Exit.LIMIT
    assert "tagged stopped: max_memory of 150m reached" in daemon.stderr


LIMITED = """
class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.1)
    {limit}

    def tick(self):
        print("ticked", flush=True)
"""


@pytest.mark.parametrize("limit", ["max_ticks = 2", "max_seconds = 0.3"])
def test_a_limit_of_the_class_ends_a_daemon_without_a_supervisor_with_76(
    project: Project, limit: str
) -> None:
    project.command("limited", LIMITED.format(limit=limit))
    assert project.manage("limited").wait(20) == Exit.LIMIT
    typed = ["--max-ticks", "1"] if "ticks" in limit else ["--max-seconds", "200ms"]
    assert project.manage("limited", *typed).wait(20) == Exit.OK
    assert project.manage("limited", "--once").wait(20) == Exit.OK


def test_a_max_memory_below_the_memory_at_start_is_refused(live: Live) -> None:
    daemon = live("tagged", "--max-memory", "300")
    assert daemon.wait(30) == Exit.USAGE
    assert "max_memory (--max-memory) of 300 is less than the" in daemon.stderr
    assert "say more, with a unit, such as 300m or 1g" in daemon.stderr
    assert "ticked" not in daemon.stdout


# Stopping


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["supervisor", "group"])
def test_a_stop_lets_all_finish_and_commit(
    live: Live, server: Server, signum: signal.Signals, whom: str
) -> None:
    daemon = live("slow_poller", "--workers", "3", "--seconds", "1", on=server)
    daemon.wait_for("in the middle", count=3, within=20)
    daemon.signal(signum) if whom == "supervisor" else daemon.signal_group(signum)
    assert daemon.wait(20) == 0
    assert len(started(daemon)) == 3
    assert sorted(notes(server)) == ["begun"] * 3 + ["done"] * 3


def test_a_stop_of_the_whole_group_starts_no_worker(live: Live) -> None:
    for _ in range(12):
        daemon = live("tagged", "--workers", "4", "--quiet")
        ready(daemon)
        daemon.signal_group(signal.SIGTERM)
        daemon.signal_group(signal.SIGTERM)  # the same burst
        assert daemon.wait(20) == 0
        assert len(started(daemon)) == 4, daemon.output
        assert not daemon.family()


def test_a_stop_while_workers_start_and_die_starts_none(live: Live) -> None:
    for turn in range(6):
        daemon = live("tagged", "--workers", "4", "--dies", "tick:9")
        daemon.wait_for("started, pid", count=2 + 2 * turn, within=30)
        daemon.signal_group(signal.SIGTERM)
        assert daemon.wait(20) == 0
        after = daemon.stderr.partition("supervisor stops")[2]
        assert "started, pid" not in after


def test_a_storm_of_sigterm_to_the_group_ends_it_without_a_start(live: Live) -> None:
    daemon = live("tagged", "--workers", "4", "--spin", "0.3")
    daemon.wait_for("spinning", count=4, within=20)

    def ended() -> bool:
        if daemon.is_running:
            with contextlib.suppress(ProcessLookupError):
                daemon.signal_group(signal.SIGTERM)
        return not daemon.is_running

    eventually(ended, within=20, every=0.02)
    assert daemon.wait() in (0, 70)  # repeated signals force an end of the workers that still run
    assert len(started(daemon)) == 4
    assert not daemon.family()


def test_a_second_signal_cuts_all_workers(live: Live, server: Server) -> None:
    daemon = live("slow_poller", "--workers", "2", "--seconds", "60", on=server)
    daemon.wait_for("in the middle", count=2, within=20)
    eventually(lambda: str(server.session_rows()).lower().count("sleep(60") >= 2)
    daemon.signal_group(signal.SIGTERM)
    daemon.wait_for("supervisor stops: SIGTERM")

    def forced() -> bool:
        if daemon.is_running:
            daemon.signal_group(signal.SIGTERM)
        return "supervisor forced to end" in daemon.so_far

    eventually(forced, every=0.2)
    assert daemon.wait(15) == 70
    server.kill_sessions()
    assert notes(server) == []


def test_stop_timeout_cuts_a_worker_and_the_supervisor_ends_with_70(
    live: Live, server: Server
) -> None:
    arguments = ["--seconds", "60", "--stop-timeout", "300ms"]
    daemon = live("slow_poller", "--workers", "2", *arguments, on=server)
    daemon.wait_for("in the middle", count=2, within=20)
    eventually(lambda: str(server.session_rows()).lower().count("sleep(60") >= 2)
    assert daemon.stop(within=15) == 70
    server.kill_sessions()
    assert notes(server) == []


def test_a_worker_that_beats_while_stopping_is_not_cut(live: Live) -> None:
    arguments = ["--spin", "6", "--beats", "--stop-timeout", "1s"]
    daemon = live("tagged", "--workers", "2", *arguments)
    daemon.wait_for("spinning", count=2, within=20)
    assert daemon.stop(within=20) == 0


def test_a_stopped_worker_does_not_delay_a_stop_for_ever(live: Live) -> None:
    daemon = live("tagged", "--workers", "2", "--stop-timeout", "500ms")
    pids = ready(daemon)
    psutil.Process(pids[0]).suspend()
    assert daemon.stop(within=20) == 70


def test_sigterm_while_workers_wait_for_their_database_ends_with_0(
    live: Live, server: Server
) -> None:
    server.stop()
    daemon = live("needy", "tagged", on=server)
    daemon.wait_for("waits for the database", within=30)
    assert daemon.stop(within=10) == 0


@pytest.mark.parametrize("deed", ["idle", "in a query", "in Python"])
def test_workers_end_within_2_s_of_their_supervisors_sigkill(
    live: Live, server: Server, deed: str
) -> None:
    how = {
        "idle": ["tagged", "--idle", "30"],
        "in a query": ["slow_poller", "--seconds", "60"],
        "in Python": ["tagged", "--spin", "60"],
    }
    daemon = live(*how[deed], "--workers", "3", on=server)
    daemon.wait_for({"idle": "tick of"}.get(deed, re.compile("middle|spinning")), count=3)
    pids = [psutil.Process(pid) for pid in started(daemon)]
    daemon.signal(signal.SIGKILL)
    eventually(lambda: not [each for each in pids if is_alive(each)], within=2)
    daemon.process.wait(5)
    server.kill_sessions()


# Reloading


def test_sighup_drains_all_workers_and_reloads_in_place(live: Live, server: Server) -> None:
    daemon = live("slow_poller", "--workers", "2", "--seconds", "1", on=server)
    daemon.wait_for("in the middle", count=2, within=20)
    daemon.signal_group(signal.SIGHUP)
    daemon.wait_for("supervisor reloads: SIGHUP")
    daemon.wait_for("supervisor is ready", count=2, within=30)
    assert notes(server).count("done") >= 2
    assert daemon.stop(within=20) == 0  # it is still the same process
    assert len(started(daemon)) == 4
    assert daemon.stderr.count("supervisor of slow_poller (2 workers) started") == 2
    assert notes(server).count("begun") == notes(server).count("done")


def test_storms_of_sighup_and_sigterm_to_the_group_are_survived(live: Live) -> None:
    daemon = live("tagged", "--workers", "3", "--quiet")
    ready(daemon)
    for turn in range(2, 6):
        for _ in range(3):
            daemon.signal_group(signal.SIGHUP)
        daemon.wait_for("supervisor is ready", count=turn, within=30)
    daemon.signal_group(signal.SIGHUP)
    daemon.signal_group(signal.SIGTERM)
    assert daemon.wait(20) == 0
    assert "Traceback" not in daemon.output
    assert not daemon.family()


# In a container


@pytest.mark.parametrize("workers", ["1", "2"])
def test_as_pid_1_it_stops_and_reaps_orphans(workers: str) -> None:
    daemon = in_a_container("orphaning", "--workers", workers)
    try:
        daemon.wait_for("orphan 3", count=int(workers), within=20)
        (first,) = [each for each in daemon.family() if each.ppid() == daemon.pid]
        eventually(
            lambda: not [each for each in first.children() if each in list(zombies())], within=5
        )
        first.send_signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert "stopped: SIGTERM" in daemon.stderr
    finally:
        daemon.end()


def test_as_pid_1_it_ends_with_the_usual_exit_code() -> None:
    daemon = in_a_container("tagged", "--dies", "lifespan:3")
    try:
        assert daemon.wait(20) == 3
    finally:
        daemon.end()


def in_a_container(*arguments: str) -> Daemon:
    """A command that is process 1 of a PID namespace."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-pf", "true"]).returncode:
        pytest.skip("unshare(1) may not make a PID namespace here")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, str(LIVES)]
    environment = child_environment({"DATABASE_URL": "sqlite://:memory:"})
    return Daemon([*command, "run_daemon", *arguments], env=environment)
