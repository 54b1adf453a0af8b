"""Public reports of other projects about the life of a process, tried on daemons."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from daemonkit.testing import Gates
from lab.processes import ROOT, Daemon, child_environment
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import signal_until_ended
from tests.kit.projects import Project
from tests.kit.sessions import notes

pytestmark = pytest.mark.one_python

DEADLINE = 30.0

POLLER = """
class Command(BaseDaemonCommand):
    schedule = Poll(idle=0.02)

    def tick(self):
        pass
"""


def children_of(daemon: Daemon) -> list[psutil.Process]:
    return [each for each in daemon.family() if each.ppid() == daemon.pid]


def test_sigterm_to_the_whole_group_lets_each_worker_finish(
    project: Project, mariadb: Server
) -> None:
    """celery #2700: supervisord's stopasgroup also signals the workers, which lost their tasks."""
    project.command(
        "worker",
        """
        from django.db import connection, transaction


        class Command(BaseDaemonCommand):
            schedule = Poll(idle=60)
            workers = 2

            def tick(self):
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("INSERT INTO entry (note) VALUES ('worked')")
                    print("in the middle", flush=True)
                    cursor.execute("SELECT SLEEP(1)")
        """,
    )
    daemon = project.manage("run_daemon", "worker", DATABASE_URL=mariadb.url)
    daemon.wait_for("in the middle", count=2, within=DEADLINE)
    daemon.signal_group(signal.SIGTERM)
    assert daemon.wait(DEADLINE) == 0
    assert notes(mariadb) == ["worked", "worked"]


def test_a_sigterm_while_workers_are_forked_is_not_lost(project: Project) -> None:
    """gunicorn #1910: a signal between fork() and the worker's handlers was lost."""
    project.command("worker", POLLER)
    daemon = project.manage("run_daemon", "worker", "--workers", "8")
    daemon.wait_for("worker.1 started", within=DEADLINE)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(DEADLINE) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_tick_gets_the_exit_codes_of_its_programs(project: Project, workers: str) -> None:
    """uvicorn #894: under gunicorn's handlers a failed program had the return code 0."""
    project.command(
        "runner",
        """
        import subprocess


        class Command(BaseDaemonCommand):
            schedule = Poll(idle=0.02)

            def tick(self):
                done = subprocess.run(["sh", "-c", "sleep 0.05; exit 7"], capture_output=True)
                print("exit code", done.returncode, flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "runner", "--workers", workers)
    daemon.wait_for("exit code", count=6, within=DEADLINE)
    assert daemon.stop(within=DEADLINE) == 0
    codes = {line.rpartition("exit code ")[2] for line in daemon.lines if "exit code" in line
             and "ended with" not in line}  # fmt: skip
    assert codes == {"7"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_program_that_a_tick_starts_can_be_interrupted(project: Project, workers: str) -> None:
    """rq #1221: a program started by a worker never received SIGINT."""
    project.module(
        "program.py",
        """
        import time

        try:
            print("program waits", flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            print("program cleans up", flush=True)
        """,
    )
    project.command(
        "runner",
        f"""
        import os
        import signal
        import subprocess
        import sys

        PROGRAM = {str(project.folder / "program.py")!r}


        class Command(BaseDaemonCommand):
            schedule = Poll(idle=60)

            def tick(self):
                with subprocess.Popen(
                    [sys.executable, PROGRAM], stdout=subprocess.PIPE, text=True
                ) as program:
                    program.stdout.readline()
                    program.send_signal(signal.SIGINT)
                    print(program.stdout.read(), flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "runner", "--workers", workers)
    daemon.wait_for("program cleans up", within=DEADLINE)
    assert daemon.stop(within=DEADLINE) == 0


def test_many_sigterms_at_the_very_end_leave_the_exit_code_0(project: Project) -> None:
    """gunicorn #2908: one that arrived while the interpreter ended killed the worker."""
    project.command("worker", POLLER)
    daemon = project.manage("run_daemon", "worker")
    daemon.wait_for("worker started", within=DEADLINE)
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("worker stopped: SIGTERM", within=DEADLINE)
    signal_until_ended(daemon, within=DEADLINE)
    assert daemon.wait(DEADLINE) == 0


def test_reloads_keep_the_pid_and_the_number_of_processes(project: Project) -> None:
    """celery #1554 and gunicorn #41: each SIGHUP left a process more, or another pid."""
    project.command("worker", POLLER)
    daemon = project.manage("run_daemon", "worker", "--workers", "2")
    for number in range(1, 4):
        daemon.wait_for("supervisor is ready", count=number, within=DEADLINE)
        assert len(children_of(daemon)) == 2
        assert len(daemon.family()) == 3
        daemon.signal(signal.SIGHUP)
    daemon.wait_for("supervisor is ready", count=4, within=DEADLINE)
    assert daemon.stop(within=DEADLINE) == 0


def test_a_worker_that_is_killed_is_replaced_and_leaves_no_zombie(project: Project) -> None:
    """huey #728: a worker killed for its memory stayed a zombie and was never restarted."""
    project.command("worker", POLLER)
    daemon = project.manage("run_daemon", "worker", "--workers", "2")
    daemon.wait_for("supervisor is ready", within=DEADLINE)
    victim = children_of(daemon)[0]
    victim.kill()
    eventually(lambda: not psutil.pid_exists(victim.pid), within=DEADLINE)
    eventually(lambda: len(children_of(daemon)) == 2, within=DEADLINE)
    assert daemon.stop(within=DEADLINE) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_atexit_functions_of_a_tick_run_at_sigterm(project: Project, workers: str) -> None:
    """taskiq #381: after a correct shutdown was added, scripts could no longer save their state."""
    project.command(
        "saver",
        """
        import atexit


        class Command(BaseDaemonCommand):
            schedule = Poll(idle=60)

            def tick(self):
                atexit.register(print, "saved", flush=True)
                print("ticked", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "saver", "--workers", workers)
    daemon.wait_for("ticked", count=int(workers), within=DEADLINE)
    assert daemon.stop(within=DEADLINE) == 0
    assert daemon.stdout.count("saved") == int(workers)


def test_sigterm_to_process_1_while_it_imports_the_project_ends_it(
    project: Project, gates: Gates
) -> None:
    """pipecat-cloud-images #104: the kernel discards a signal to PID 1 without a handler, and the
    import of the user's module may take long."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-pf", "true"]).returncode:
        pytest.skip("unshare(1) may not make a PID namespace here")
    gate = gates.close("in the import")
    project.command("slow", 'from daemonkit.testing import gate\ngate("in the import")\n' + POLLER)
    manage_py = str(ROOT / "sample_site" / "manage.py")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, manage_py]
    database = {"DATABASE_URL": "sqlite://:memory:"}
    environment = child_environment({**project.environment, **database})
    daemon = Daemon([*command, "run_daemon", "slow"], env=environment)
    try:
        gate.wait_for()
        (first,) = children_of(daemon)
        first.send_signal(signal.SIGTERM)
        gate.open()
        assert daemon.wait(DEADLINE) in (0, 128 + signal.SIGTERM)
    finally:
        daemon.end()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_thread_that_looks_rarely_whether_it_should_stop_holds_no_process(
    project: Project, workers: str
) -> None:
    """conbench #1161: a thread of the application kept a worker for two minutes, until its
    supervisor killed it. Here the process ends after stop_timeout, and names the thread."""
    project.command(
        "cacher",
        """
        import threading
        import time


        class Command(BaseDaemonCommand):
            schedule = Poll(idle=60)
            stop_timeout = 1

            def tick(self):
                threading.Thread(target=time.sleep, args=(600,), name="refresher").start()
                print("ticked", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "cacher", "--workers", workers)
    daemon.wait_for("ticked", count=int(workers), within=DEADLINE)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(DEADLINE) == 70
    assert "refresher" in daemon.output
