"""The end of a worker: an ordinary one, like that of any Python process, and a forced one."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest

from lab.processes import MANAGE_PY, Daemon, child_environment, is_alive, manage_command
from lab.waiting import eventually
from tests.kit.projects import Project


def test_a_worker_that_is_replaced_leaves_no_multiprocessing_children_behind(
    project: Project,
) -> None:
    project.command(
        "recycled",
        """
        import multiprocessing, time

        def consume():
            while True:
                time.sleep(1)

        class Command(BaseDaemonCommand):
            schedule = Poll(idle=0.05)
            max_ticks = 2
            helper = None

            def tick(self):
                if self.helper is None:
                    fork = multiprocessing.get_context("fork")
                    self.helper = fork.Process(target=consume, daemon=True)
                    self.helper.start()
        """,
    )
    daemon = project.manage("run_daemon", "recycled", "--workers", "2")
    daemon.wait_for(" started, pid ", within=40, count=8)
    assert len(daemon.family()) <= 1 + 2 * 2 + 2  # and one that is not reaped yet
    assert daemon.stop(within=20) == 0
    assert not daemon.family()


def test_a_worker_runs_atexit_functions_and_flushes_its_logs(project: Project) -> None:
    """Functions that were registered before the fork run, too."""
    project.command(
        "registering",
        """
        import atexit, logging, logging.handlers, os, tempfile

        atexit.register(lambda: print("registered before the fork", os.getpid(), flush=True))
        buffered = logging.handlers.MemoryHandler(1000, target=logging.StreamHandler())
        logging.getLogger("buffered").addHandler(buffered)

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)
            per_worker = True

            def lifespan(self):
                atexit.register(print, "registered in the worker", flush=True)
                return super().lifespan()

            def tick(self):
                logging.getLogger("buffered").warning("still in the buffer")
                print("ticked", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "registering", "--workers", "2")
    daemon.wait_for("| ticked", within=20, count=2)
    assert daemon.stop(within=20) == 0
    for label in ("registering.1", "registering.2"):
        for line in ("registered before the fork", "registered in the worker"):
            assert len(re.findall(rf"^{label} \| {line}", daemon.stdout, re.M)) == 1
        assert f"{label} | still in the buffer" in daemon.stderr


def test_resources_of_the_supervisor_outlive_its_workers(project: Project) -> None:
    project.command(
        "holding",
        """
        import os, tempfile

        folder = tempfile.TemporaryDirectory()

        class Command(BaseDaemonCommand):
            schedule = Poll(idle=0.05)
            max_ticks = 2

            def tick(self):
                state = "there" if os.path.isdir(folder.name) else "gone"
                print("the folder is", state, flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "holding", "--workers", "2")
    daemon.wait_for("the folder is", within=40, count=12)
    assert daemon.stop(within=20) == 0
    assert "the folder is gone" not in daemon.stdout


def test_a_shutdown_that_hangs_is_limited_by_stop_timeout(project: Project) -> None:
    project.command(
        "lingering",
        """
        import atexit, time

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)
            per_worker = True

            def tick(self):
                atexit.register(time.sleep, 60)
                print("ticked", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "lingering", "--workers", "2", "--stop-timeout", "300ms")
    daemon.wait_for("| ticked", within=20, count=2)
    assert daemon.stop(within=15) == 70


# Child processes


FORKING = """
import os, signal, subprocess, sys

IGNORES = "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); "

class Command(BaseDaemonCommand):
    schedule = Poll(idle=1)
    pulse = 0.3

    def tick(self):
        stubborn = subprocess.Popen([sys.executable, "-c", IGNORES + "signal.pause()"])
        plain = subprocess.Popen(["sleep", "61"])
        print("children", stubborn.pid, plain.pid, flush=True)
        plain.wait()
        {after}
"""


def children_of(daemon: Daemon, count: int = 1) -> list[psutil.Process]:
    """Return the child processes that ``count`` ticks have started, all of them running."""
    daemon.wait_for("ready", within=20, count=count)
    daemon.wait_for("children", within=20, count=count)
    found = re.findall(r"children (\d+) (\d+)", daemon.so_far)
    return [psutil.Process(int(pid)) for pids in found for pid in pids]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("after", ["os.kill(os.getpid(), 0)", "signal.pause()"])
def test_the_children_of_a_process_that_is_forced_to_end_are_ended_too(
    project: Project, workers: str, after: str
) -> None:
    """Whether or not the tick ends with its child, and whether or not the child obeys SIGTERM."""
    project.command("parental", FORKING.format(after=after))
    daemon = project.manage(
        "run_daemon", "parental", "--workers", workers, "--stop-timeout", "300ms"
    )
    children = children_of(daemon, int(workers))
    assert daemon.stop(within=15) == 70
    eventually(lambda: not [child for child in children if is_alive(child)], 5)


def test_the_children_of_a_killed_worker_are_ended_too(project: Project) -> None:
    project.command("parental", FORKING.format(after="pass"))
    daemon = project.manage("run_daemon", "parental", "--workers", "2", "--stop-timeout", "300ms")
    children = children_of(daemon, 2)
    pid = int(daemon.wait_for("parental.1 started, pid").rpartition(" ")[2])
    mine = [child for child in children if child.ppid() == pid]
    assert len(mine) == 2
    psutil.Process(pid).suspend()
    assert daemon.stop(within=20) == 70
    eventually(lambda: not [child for child in children if is_alive(child)], 5)


# Standard streams


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_daemons_work_with_closed_standard_streams(
    project: Project, tmp_path: Path, closed: str, workers: str
) -> None:
    log = tmp_path / "log"
    project.command(
        "silent",
        f"""
        import os

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)
            per_worker = True

            def tick(self):
                os.system("echo from a program")
                with open({str(log)!r}, "a") as file:
                    file.write(f"{{os.getppid()}} ticked\\n")
        """,
    )
    command = manage_command("run_daemon", "silent", "--workers", workers, manage_py=MANAGE_PY)
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    daemon = Daemon(shell, env=child_environment(project.environment))
    try:
        ticks = int(workers)
        eventually(lambda: log.exists() and log.read_text().count("ticked") == ticks, 20)
        daemon.signal(signal.SIGHUP)
        eventually(lambda: log.read_text().count("ticked") == 2 * ticks, 20)
        assert daemon.stop(within=20) == 0
    finally:
        daemon.end()


def test_threads_that_a_fork_does_not_copy_are_named_in_a_warning(project: Project) -> None:
    project.command(
        "threaded",
        """
        import threading, time

        threading.Thread(target=time.sleep, args=[60], name="queue-listener", daemon=True).start()

        class Command(BaseDaemonCommand):
            schedule = Poll(idle=0.1)

            def tick(self): ...
        """,
    )
    daemon = project.manage("run_daemon", "threaded", "--workers", "2")
    line = daemon.wait_for("in no worker", within=20)
    assert "the threads queue-listener run in the supervisor" in line
    assert daemon.stop(within=20) == 0
