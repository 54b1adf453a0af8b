"""Ticks that use pandas and gevent, in real processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

from lab.processes import MANAGE_PY, Daemon
from tests.kit.projects import Project

pytestmark = pytest.mark.one_python

DEADLINE = 60.0


@pytest.mark.parametrize("schedule", ["Every(seconds=0.05)", "Poll(idle=0.05)"])
@pytest.mark.parametrize("verbosity", ["1", "2"])
def test_a_data_frame_is_a_result_like_any_other(
    project: Project, schedule: str, verbosity: str
) -> None:
    """A poller asks whether its result is true, which a DataFrame refuses to say."""
    project.command(
        "tabular",
        f"""
        import pandas
        from daemonkit import job


        class Command(BaseDaemonCommand):
            ledger = False

            @job({schedule})
            def made(self):
                print("ticked", flush=True)
                return pandas.DataFrame({{"n": [1, 2, 3]}})
        """,
    )
    daemon = project.manage("run_daemon", "tabular", "-v", verbosity)
    daemon.wait_for("ticked", count=2, within=DEADLINE)
    assert daemon.stop() == 0
    ambiguous = "truth value of a DataFrame is ambiguous" in daemon.stderr
    assert ambiguous == schedule.startswith("Poll")


def test_a_loop_that_polls_with_a_data_frame_fails_its_ticks_and_goes_on(project: Project) -> None:
    project.command(
        "tabular",
        """
        import pandas
        from daemonkit import Backoff


        class Command(BaseDaemonCommand):
            schedule = Poll(idle=0.05)
            backoff = Backoff(first=0.01, cap=0.01)

            def tick(self):
                print("ticked", flush=True)
                return pandas.DataFrame({"n": [1]})
        """,
    )
    daemon = project.manage("run_daemon", "tabular")
    daemon.wait_for("ticked", count=3, within=DEADLINE)
    assert daemon.stop() == 0
    assert "truth value of a DataFrame is ambiguous" in daemon.stderr


@pytest.mark.parametrize("how", ["timeout", "kill"])
def test_a_tick_that_gevent_ends_is_a_failed_tick(project: Project, how: str) -> None:
    """gevent's Timeout and GreenletExit are no subclasses of Exception."""
    works = {
        "timeout": "with gevent.Timeout(0.01):\n                    gevent.sleep(60)",
        "kill": "raise gevent.GreenletExit('killed')",
    }
    project.command(
        "green",
        f"""
        import gevent
        from daemonkit import Backoff


        class Command(BaseDaemonCommand):
            schedule = Every(seconds=0.05)
            backoff = Backoff(first=0.01, cap=0.01)

            def tick(self):
                print("ticked", flush=True)
                {works[how]}
        """,
    )
    daemon = project.manage("run_daemon", "green")
    daemon.wait_for("ticked", count=3, within=DEADLINE)
    assert daemon.stop() == 0
    assert "green tick 1 failed" in daemon.stderr


@pytest.fixture
def patched(project: Project) -> Iterator[Callable[..., Daemon]]:
    """Return ``patched("run_daemon", ...)``: a process that gevent patches, as its docs say."""
    started: list[Daemon] = []

    def start(*arguments: str) -> Daemon:
        command = [sys.executable, "-m", "gevent.monkey", str(MANAGE_PY), *arguments]
        environment = project.environment | {"DATABASE_URL": "sqlite://:memory:"}
        environment["PYTHONPATH"] += os.pathsep + str(MANAGE_PY.parent)  # gevent does not add it
        started.append(Daemon(command, env=environment))
        return started[-1]

    yield start
    for daemon in started:
        daemon.end()


GREEN = """
import gevent
from django.db import connection
from daemonkit import job


class Command(BaseDaemonCommand):
    {schedule}
    ledger = False

    {marker}
    def tick(self):
        gevent.joinall([gevent.spawn(gevent.sleep, 0.01) for _ in range(3)])
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        print("ticked", flush=True)
"""


@pytest.mark.parametrize(
    ("schedule", "marker"),
    [("schedule = Every(seconds=0.05)", ""), ("", "@job(Every(seconds=0.05))")],
    ids=["loop", "job"],
)
def test_signals_are_heard_in_a_process_that_gevent_has_patched(
    project: Project, patched: Callable[..., Daemon], schedule: str, marker: str
) -> None:
    source = GREEN.format(schedule=schedule, marker=marker)
    project.command("green", source.replace("def tick", "def turn") if marker else source)
    daemon = patched("run_daemon", "green")
    daemon.wait_for("ticked", count=3, within=DEADLINE)
    assert daemon.stop() == 0
    assert "green stopped: SIGTERM" in daemon.stderr
