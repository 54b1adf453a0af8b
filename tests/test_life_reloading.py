"""SIGHUP: the same process, with new code. Real processes, real signals."""

from __future__ import annotations

import os
import pty
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.processes import Daemon
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.projects import Project


def says(word: str) -> str:
    return f"""
    from django.db import connection

    class Command(BaseDaemonCommand):
        schedule = Every(seconds=60)

        def tick(self):
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            print("{word}", flush=True)
    """


Start = Callable[..., Daemon]


@pytest.mark.parametrize("door", [["run_daemon", "speaker"], ["speaker"]])
def test_sighup_keeps_the_pid_and_takes_new_code(project: Project, door: list[str]) -> None:
    project.command("speaker", says("before"))
    daemon = project.manage(*door)
    daemon.wait_for("before")
    project.command("speaker", says("after, and of another length"))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("after", within=20)
    assert daemon.stop() == 0  # the same process still
    assert "speaker begins anew: SIGHUP" in daemon.stderr
    assert "speaker stopped: SIGTERM" in daemon.stderr


@pytest.mark.parametrize("moment", ["begins anew", "stopped: SIGHUP", "started: "])
def test_a_sigterm_at_any_moment_of_the_change_is_not_lost(project: Project, moment: str) -> None:
    """Heard by the old image and not acted upon, or blocked until the new one hears it."""
    project.command("speaker", says("spoken"))
    for _ in range(4):
        daemon = project.manage("run_daemon", "speaker")
        daemon.wait_for("spoken", within=20)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for(moment, within=20, count=2 if moment == "started: " else 1)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(20) == 0


def test_many_reloads_at_once_are_survived(project: Project) -> None:
    project.command("speaker", says("spoken"))
    daemon = project.manage("run_daemon", "speaker")
    daemon.wait_for("spoken", within=20)
    for _ in range(5):
        seen = len(daemon.lines)
        daemon.signal(signal.SIGHUP)
        eventually(lambda seen=seen: len(daemon.lines) > seen, within=20)
        daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.lines[-1] == "spoken", within=20)
    assert daemon.stop(within=20) == 0


def test_a_sigterm_after_sighup_ends_it(project: Project) -> None:
    project.command(
        "sleeper",
        """
        import time

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                print("ticking", flush=True)
                time.sleep(1.0)
                print("done", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "sleeper")
    daemon.wait_for("ticking", within=20)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("begins anew")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(10) == 0
    assert daemon.stdout.splitlines() == ["ticking", "done"]


def test_new_code_that_does_not_compile_fails_loudly(project: Project) -> None:
    project.command("speaker", says("before"))
    daemon = project.manage("run_daemon", "speaker")
    daemon.wait_for("before", within=20)
    project.command("speaker", "class Command(BaseDaemonCommand:")
    daemon.signal(signal.SIGHUP)
    assert daemon.wait(20) == 2
    assert "speaker of depot cannot be imported: SyntaxError" in daemon.stderr


def test_a_daemon_started_under_nohup_leaves_sighup_ignored(project: Project) -> None:
    project.command("speaker", says("spoken"))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        daemon = project.manage("run_daemon", "speaker")
        daemon.wait_for("spoken", within=20)
    finally:
        signal.signal(signal.SIGHUP, before)
    daemon.signal(signal.SIGHUP)
    assert daemon.stop() == 0
    assert "begins anew" not in daemon.stderr


def test_a_daemon_whose_terminal_is_closed_ends(project: Project) -> None:
    project.command("speaker", says("spoken"))
    pid, terminal = pty.fork()
    if pid == 0:
        site = f"{project.folder}:{Path.cwd()}"
        os.environ.update(PYTHONPATH=site, DJANGO_SETTINGS_MODULE="depot_settings")
        command = [sys.executable, "sample_site/manage.py", "run_daemon", "speaker"]
        os.execv(sys.executable, command)
    heard = b""

    def spoken() -> bool:
        nonlocal heard
        heard += os.read(terminal, 4096)
        return b"spoken" in heard

    eventually(spoken, within=20)
    os.close(terminal)
    eventually(lambda: os.waitpid(pid, os.WNOHANG) == (pid, 0), within=10)


def test_it_follows_a_link_that_was_moved_to_the_next_release(
    project: Project, tmp_path: Path
) -> None:
    """``current`` is a link to a release's folder, as Capistrano and its kin deploy."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "release.txt").write_text(release)
    current = tmp_path / "current"
    current.symlink_to("one")
    project.command(
        "reader",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                print("release", open("release.txt").read(), flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "reader", cwd=current, PWD=str(current))
    daemon.wait_for("release one", within=20)
    current.unlink()
    current.symlink_to("two")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("release two", within=20)
    assert daemon.stop() == 0


def test_no_session_is_left_behind(project: Project, server: Server) -> None:
    """libmariadb's sockets used to survive the exec; the server would count them for hours."""
    project.command("speaker", says("spoken"))
    daemon = project.manage("run_daemon", "speaker", DATABASE_URL=server.url, CONN_MAX_AGE="none")
    for turn in range(1, 4):
        daemon.wait_for("spoken", within=20, count=turn)
        eventually(lambda: len(server.sessions()) == 1)
        daemon.signal(signal.SIGHUP)
    daemon.wait_for("spoken", within=20, count=4)
    eventually(lambda: len(server.sessions()) == 1)
    assert daemon.stop() == 0


def test_a_program_that_is_gone_is_one_sentence(project: Project) -> None:
    project.command(
        "uprooted",
        """
        import sys

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                sys.orig_argv[0] = "/an/environment/that/was/removed/python"
                print("ticked", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "uprooted")
    daemon.wait_for("ticked", within=20)
    daemon.signal(signal.SIGHUP)
    assert daemon.wait(20) == 1
    assert "uprooted cannot execute itself anew: FileNotFoundError" in daemon.stderr
    assert "Traceback" not in daemon.stderr
