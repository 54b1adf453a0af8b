"""SIGHUP: the same process, with new code. Real processes, real signals."""

from __future__ import annotations

import os
import pty
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from daemonkit.testing import Gates
from lab.processes import MANAGE_PY, ROOT, Daemon, child_environment, is_alive
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
    assert daemon.stop() == 0  # it is still the same process
    assert "speaker reloads: SIGHUP" in daemon.stderr
    assert "speaker stopped: SIGTERM" in daemon.stderr


@pytest.mark.parametrize("moment", ["reloads: SIGHUP", "stopped: SIGHUP", "started: "])
def test_a_sigterm_at_any_moment_of_a_reload_is_not_lost(project: Project, moment: str) -> None:
    """One of the images handles it, or it ends the new one before that has handlers."""
    project.command("speaker", says("spoken"))
    for _ in range(4):
        daemon = project.manage("run_daemon", "speaker")
        daemon.wait_for("spoken", within=20)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for(moment, within=20, count=2 if moment == "started: " else 1)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(20) in (0, -signal.SIGTERM if moment != "started: " else 0)


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


def test_a_sigterm_after_sighup_ends_it(project: Project, gates: Gates) -> None:
    gate = gates.close("tick")
    project.command(
        "sleeper",
        """
        from daemonkit.testing import gate

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                print("ticking", flush=True)
                gate("tick")
                print("done", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "sleeper")
    daemon.wait_for("ticking", within=20)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("reloads: SIGHUP", within=20)
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("sleeper stops: SIGTERM")
    gate.open()
    assert daemon.wait(10) == 0
    assert daemon.stdout.splitlines() == ["ticking", "done"]


BROKEN = {
    "a syntax error": ("class Command(BaseDaemonCommand:", "cannot be imported: SyntaxError"),
    "a missing module": ("import no_such_module", "ModuleNotFoundError"),
    "no tick": ("class Command(BaseDaemonCommand):\n    schedule = Every(1)", "has no tick()"),
    "a misspelt setting": (
        "class Command(BaseDaemonCommand):\n    shedule = Every(1)\n    def tick(self): ...",
        "write schedule, or",
    ),
    "a failing check": (
        """
        from django.core import checks

        @checks.register
        def complain(**kwargs):
            return [checks.Error("the prices are wrong")]

        class Command(BaseDaemonCommand):
            schedule = Every(1)
            def tick(self): ...
        """,
        "",
    ),
    "an import that ends the process": ("raise SystemExit(0)", "cannot be imported: SystemExit"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_daemon_whose_new_code_does_not_load_goes_on_and_says_so(
    project: Project, kind: str
) -> None:
    code, reason = BROKEN[kind]
    project.command("speaker", says("spoken").replace("seconds=60", "seconds=0.2"))
    daemon = project.manage("run_daemon", "speaker")
    daemon.wait_for("spoken", within=20)
    project.command("speaker", code)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("speaker goes on with the old code:", within=20)
    assert reason in daemon.so_far
    daemon.wait_for("spoken", count=daemon.so_far.count("spoken") + 2)
    project.command("speaker", says("the mended code"))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("the mended code", within=20)
    assert daemon.stop() == 0
    assert daemon.stderr.count("speaker started") == 2


@pytest.mark.parametrize("door", [["speaker", "--workers", "2"], ["speaker", "time.time"]])
def test_a_supervisor_whose_new_code_does_not_load_goes_on_too(
    project: Project, door: list[str]
) -> None:
    polling = says("spoken").replace("Every(seconds=60)", "Poll(idle=0.2)")
    project.command("speaker", polling)
    if "time.time" in door:
        project.command("other", polling)
        door = ["speaker", "other"]
    daemon = project.manage("run_daemon", *door)
    daemon.wait_for("spoken", within=20, count=2)
    project.command("speaker", "class Command(BaseDaemonCommand:")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("supervisor goes on with the old code:", within=20)
    daemon.wait_for("spoken", count=daemon.so_far.count("spoken") + 2)
    assert daemon.stop(within=20) == 0


def test_a_trial_that_hangs_is_ended_after_stop_timeout(project: Project) -> None:
    project.command("speaker", says("spoken"))
    daemon = project.manage("run_daemon", "speaker", "--stop-timeout", "2s")
    daemon.wait_for("spoken", within=20)
    project.command("speaker", "import time; time.sleep(600)")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("old code: it did not load within stop_timeout of 2 s", within=20)
    assert psutil.Process(daemon.pid).children(recursive=True) == []
    assert daemon.stop() == 0


def test_a_sigterm_during_the_trial_ends_both(project: Project) -> None:
    project.command("speaker", says("spoken"))
    daemon = project.manage("run_daemon", "speaker")
    daemon.wait_for("spoken", within=20)
    project.command("speaker", "import time; time.sleep(600)")
    daemon.signal(signal.SIGHUP)
    (trial,) = eventually(lambda: psutil.Process(daemon.pid).children())
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(within=10) == 0
    assert not is_alive(trial)


def test_a_trial_needs_no_database_and_sends_nothing_to_systemd(project: Project) -> None:
    project.command(
        "speaker",
        says("spoken")
        + """
    import os
    assert "NOTIFY_SOCKET" not in os.environ or "DAEMONKIT_TRIAL" not in os.environ
    """,
    )
    daemon = project.manage("run_daemon", "speaker", LISTEN_FDS="1")
    daemon.wait_for("spoken", within=20)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("spoken", count=2, within=20)
    assert daemon.stop() == 0


SETTING = """
from config.settings import *
import os, subprocess, sys
INSTALLED_APPS += ['depot']
os.environ.setdefault("GREETING", open({greeting!r}).read())
if os.environ.get("DAEMONKIT_TRIAL") is None:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
"""


def test_the_new_image_starts_with_the_environment_and_the_mask_of_the_first(
    project: Project, tmp_path: Path
) -> None:
    """Settings read a .env file by setdefault(), and start a program."""
    greeting = tmp_path / "greeting"
    greeting.write_text("hello")
    (project.folder / "depot_settings.py").write_text(SETTING.format(greeting=str(greeting)))
    project.command(
        "speaker",
        """
        import os

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                os.environ["GREETING"] += " again"
                os.chdir("/")
                print(os.environ["GREETING"], flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "speaker", KEPT="as it was")
    daemon.wait_for("hello again", within=20)
    (first,) = psutil.Process(daemon.pid).children()
    greeting.write_text("good morning")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("good morning again", within=20)
    assert not is_alive(first)
    (second,) = psutil.Process(daemon.pid).children()  # and the first is no zombie
    second.terminate()
    eventually(lambda: not is_alive(second))  # SIGTERM was not blocked in it
    environment = psutil.Process(daemon.pid).environ()
    assert environment["KEPT"] == "as it was"
    assert "GREETING" not in environment
    assert daemon.stop() == 0


def test_a_relative_program_is_found_after_a_tick_has_changed_the_folder(
    project: Project, tmp_path: Path
) -> None:
    project.command(
        "speaker",
        """
        import os

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                print("spoken in", os.getcwd(), flush=True)
                os.chdir("/")
        """,
    )
    environment = child_environment(
        {
            "DJANGO_SETTINGS_MODULE": "depot_settings",
            "PYTHONPATH": f"{project.folder}:{ROOT}",
            "PWD": "/nowhere",
            "DATABASE_URL": f"sqlite:///{tmp_path / 'site.sqlite3'}",
        }
    )
    command = [os.path.relpath(sys.executable, tmp_path), str(MANAGE_PY), "run_daemon", "speaker"]
    daemon = Daemon(command, env=environment, cwd=tmp_path)
    try:
        daemon.wait_for("spoken in", within=20)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for(f"spoken in {tmp_path}", within=20, count=2)
        assert daemon.stop() == 0
    finally:
        daemon.end()


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
    assert " reloads: " not in daemon.stderr


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


def test_a_reload_follows_a_link_that_was_moved_to_the_next_release(
    project: Project, tmp_path: Path
) -> None:
    """``current`` is a link to a release's folder, as Capistrano and similar tools deploy."""
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
    """libmariadb's sockets used to survive the exec, and stayed open on the server for hours."""
    project.command("speaker", says("spoken"))
    daemon = project.manage("run_daemon", "speaker", DATABASE_URL=server.url, CONN_MAX_AGE="none")
    for turn in range(1, 4):
        daemon.wait_for("spoken", within=20, count=turn)
        eventually(lambda: len(server.sessions()) == 1)
        daemon.signal(signal.SIGHUP)
    daemon.wait_for("spoken", within=20, count=4)
    eventually(lambda: len(server.sessions()) == 1)
    assert daemon.stop() == 0


def test_a_missing_program_is_reported_in_one_sentence(project: Project) -> None:
    project.command(
        "uprooted",
        """
        import sys

        sys.orig_argv[0] = "/an/environment/that/was/removed/python"

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                print("ticked", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "uprooted")
    daemon.wait_for("ticked", within=20)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("uprooted goes on with the old code: FileNotFoundError", within=20)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.stderr
