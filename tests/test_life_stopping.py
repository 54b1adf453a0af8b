"""Lives that are stopped: real processes, real signals, and what the server shows."""

from __future__ import annotations

import contextlib
import gc
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command

from daemonkit.testing import Gates
from lab.processes import ROOT, Daemon, child_environment
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import LIVES, Live, Manage, signal_until_ended, signal_until_forced
from tests.kit.projects import Project
from tests.kit.sessions import notes

Notes = Callable[[], list[str]]


@pytest.fixture(params=["mariadb", "postgres", "sqlite"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[dict[str, Server | str | None], Notes]:
    """Arguments for ``live()``, and the notes that are in its database."""
    if request.param != "sqlite":
        server: Server = request.getfixturevalue(request.param)
        return {"on": server}, lambda: notes(server)
    path = tmp_path / "entries.sqlite3"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, note TEXT)")
    made.close()

    def read() -> list[str]:
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT note FROM entry ORDER BY id").fetchall()
        connection.close()
        return [row[0] for row in rows]

    return {"DATABASE_URL": f"sqlite:///{path}"}, read


Database = tuple[dict[str, Server | str | None], Notes]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_ends_at_once_with_0_and_closes_its_lifespan(
    live: Live, signum: int
) -> None:
    daemon = live("steady", "--every", "1h")
    daemon.wait_for("session")
    assert daemon.stop(signum, within=5) == 0
    assert daemon.stdout.splitlines() == ["opened", "session 0", "closed"]
    assert f"steady stopped: {signal.Signals(signum).name}" in daemon.stderr


def test_a_daemon_that_ends_closes_its_sessions_properly(live: Live, mariadb: Server) -> None:
    def aborted() -> object:
        return mariadb.execute("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")

    before = aborted()
    daemon = live("steady", "--every", "1h", on=mariadb)
    daemon.wait_for("session")
    assert daemon.stop() == 0
    assert aborted() == before


def test_the_garbage_collector_skips_what_was_loaded_before_the_life(
    manage: Manage,
) -> None:
    daemon = manage("run_daemon", "gc.get_freeze_count", "--once", "-v", "2")
    assert daemon.wait() == 0
    assert int(daemon.stderr.partition("tick 1 took ")[2].split()[1]) > 10_000


def test_call_command_does_not_change_the_garbage_collector() -> None:
    before = gc.get_freeze_count()
    call_command("run_daemon", "time.time", "--once")
    assert gc.get_freeze_count() == before


def test_sigterm_during_a_tick_lets_it_finish_and_commit(live: Live, database: Database) -> None:
    arguments, read = database
    daemon = live("slow", **arguments)
    daemon.wait_for("in the middle")
    assert daemon.stop() == 0
    assert read() == ["begun", "done"]
    assert daemon.stdout.splitlines() == ["in the middle", "committed"]


def test_a_second_signal_cuts_the_tick_and_rolls_it_back(live: Live, server: Server) -> None:
    daemon = live("slow", "--seconds", "60", on=server)
    daemon.wait_for("in the middle")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("slow stops: SIGTERM")
    assert daemon.process.poll() is None
    eventually(lambda: "sleep(60" in str(server.session_rows()).lower())
    signal_until_forced(daemon)
    assert daemon.wait(within=10) == 70
    assert "unknown outcome" in daemon.stderr
    server.kill_sessions()  # the server itself notices when the minute is over
    assert notes(server) == []


def test_a_signal_that_arrives_twice_at_once_counts_once(live: Live) -> None:
    """timeout(1) and some supervisors signal the process and then its group."""
    daemon = live("slow", "--seconds", "1", "--python", DATABASE_URL="sqlite://:memory:")
    daemon.wait_for("tick")
    daemon.signal(signal.SIGTERM)
    daemon.signal_group(signal.SIGTERM)
    assert daemon.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "stopped"),
    [
        (["--lingers", "0.3"], "lingers"),
        (["--spin", "0.3"], "tagged stopped: SIGTERM"),
        (["--spin", "0.3", "--workers", "2"], "supervisor stopped: SIGTERM"),
    ],
    ids=["in a listener", "alone", "with workers"],
)
def test_a_late_signal_does_not_change_the_exit_code(
    live: Live, arguments: list[str], stopped: str
) -> None:
    """The interpreter resets signal handlers as it shuts down, before it has ended."""
    for _ in range(4):
        daemon = live("tagged", "--idle", "60", *arguments, DATABASE_URL="sqlite://:memory:")
        daemon.wait_for("tick of", within=20)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for(stopped, within=20)
        signal_until_ended(daemon)
        assert daemon.wait() == 0, daemon.output


def test_stop_timeout_that_runs_out_cuts_the_tick(live: Live, server: Server) -> None:
    daemon = live("slow", "--seconds", "60", "--stop-timeout", "300ms", on=server)
    daemon.wait_for("in the middle")
    eventually(lambda: "sleep(60" in str(server.session_rows()).lower())
    assert daemon.stop() == 70
    assert "stop_timeout of 0.3 s ran out" in daemon.stderr
    server.kill_sessions()
    assert notes(server) == []


def test_beat_while_stopping_restarts_stop_timeout(live: Live, server: Server) -> None:
    arguments = ["--seconds", "3", "--beats", "--stop-timeout", "1s"]
    daemon = live("slow", *arguments, on=server)
    daemon.wait_for("in the middle")
    assert daemon.stop() == 0
    assert notes(server) == ["begun", "done"]


def test_after_the_cut_no_statement_runs_even_if_the_tick_catches_every_error(
    live: Live, database: Database
) -> None:
    arguments, read = database
    daemon = live("stubborn", "--stop-timeout", "200ms", **arguments)
    daemon.wait_for("wrote 20")
    assert daemon.stop(within=10) == 70
    daemon.wait_for("refused")
    lines = daemon.stdout.splitlines()
    first_refusal = next(number for number, line in enumerate(lines) if "refused" in line)
    assert not [line for line in lines[first_refusal:] if line.startswith("wrote")]
    said = sum(line.startswith("wrote") for line in lines)
    assert said <= len(read()) <= said + 1  # the statement in flight may have taken effect


def test_a_tick_that_ignores_everything_ends_with_the_process(live: Live) -> None:
    daemon = live("hanging", "--stop-timeout", "200ms")
    daemon.wait_for("hanging now")
    assert daemon.stop(within=10) == 70


def test_sigterm_while_the_daemons_module_is_imported_is_not_lost(live: Live, gates: Gates) -> None:
    gate = gates.close("in the import")
    daemon = live("late_import")
    gate.wait_for()
    daemon.signal(signal.SIGTERM)
    gate.open()
    assert daemon.wait() == 0
    assert "imported" in daemon.stdout
    assert "ticked" not in daemon.stdout


def test_sigusr1_shows_the_stack_of_every_thread(live: Live, mariadb: Server) -> None:
    daemon = live("slow", "--seconds", "60", on=mariadb)
    daemon.wait_for("in the middle")
    eventually(lambda: "sleep(60" in str(mariadb.session_rows()).lower())
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for("in pass_time")
    daemon.wait_for("watcher.py")
    daemon.end()
    mariadb.kill_sessions()


def test_as_pid_1_it_can_be_stopped(live: Live) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-pf", "true"]).returncode:
        pytest.skip("unshare(1) may not make a PID namespace here")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, str(LIVES)]
    environment = child_environment({"DATABASE_URL": "sqlite://:memory:"})
    daemon = Daemon([*command, "run_daemon", "steady"], env=environment)
    try:
        daemon.wait_for("session")
        (first,) = [each for each in daemon.family() if each.ppid() == daemon.pid]
        first.send_signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert "steady stopped: SIGTERM" in daemon.stderr
    finally:
        daemon.end()


def test_reload_restarts_on_a_change_of_code_and_survives_code_that_does_not_load(
    manage: Manage, tmp_path: Path
) -> None:
    """The autoreloader runs the daemon off the main thread, where Python takes no signals."""
    package = tmp_path / "changing"
    (package / "management" / "commands").mkdir(parents=True)
    for folder in (package, package / "management", package / "management" / "commands"):
        (folder / "__init__.py").touch()
    code = package / "management" / "commands" / "changing.py"
    code.write_text(CHANGING.format(word="before"))
    settings = "from tests.lives.settings import *\nINSTALLED_APPS += ['changing']\n"
    (tmp_path / "changing_settings.py").write_text(settings)
    site = f"{tmp_path}:{ROOT}:{ROOT / 'sample_site'}"
    daemon = manage(
        *("run_daemon", "changing", "--reload", "--settings", "changing_settings"),
        manage_py=LIVES,
        env={"PYTHONPATH": site, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    daemon.wait_for("before")

    def change(text: str, answer: str) -> None:
        def changed() -> bool:  # again, if the reloader had not yet noted the times of files
            assert daemon.is_running, daemon.so_far
            code.write_text(text)
            with contextlib.suppress(AssertionError):
                daemon.wait_for(answer, within=5)
            return answer in daemon.so_far

        eventually(changed, within=40, what=answer)

    change(CHANGING.format(word="after"), "after")
    change("class Command(", "it is tried again when it changes")
    change(CHANGING.format(word="mended"), "mended")
    daemon.signal_group(signal.SIGINT)
    assert daemon.wait() == 0


CHANGING = """
from daemonkit import BaseDaemonCommand, Every

class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.1)

    def tick(self):
        print("{word}", flush=True)
"""


# A fork in a tick


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("end", "code"), [("return", 0), ("raise ValueError('broken')", 1), ("sys.exit(3)", 3)]
)
def test_a_child_that_a_tick_forks_ends_with_the_tick(
    project: Project, kind: str, end: str, code: int
) -> None:
    project.command(
        "forking",
        f"""
        import os
        import sys


        class Command(BaseDaemonCommand):
            schedule = Every(seconds=0.01)

            {"async " if kind == "async" else ""}def tick(self):
                if child := os.fork():
                    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                    print("child ended with", code, flush=True)
                    return
                {end}
        """,
    )
    daemon = project.manage("run_daemon", "forking", "--max-ticks", "3")
    assert daemon.wait(30) == 0
    assert daemon.stdout.count(f"child ended with {code}") == 3
    assert daemon.stderr.count("forking stopped") == 1
