"""A process that was told to stop is gone in time, whatever it has left behind, and says what."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from daemonkit import Exit
from lab.processes import ROOT, Daemon, is_alive, run_python
from lab.waiting import eventually
from tests.kit.processes import Live

SQLITE = "sqlite://:memory:"

LEFT = [
    ("leave_a_thread", "thread consumer in consume() at lingering.py"),
    ("leave_a_child", "child process"),
    ("leave_an_exit_function", "the main thread in consume() at lingering.py"),
    ("leave_a_lifespan", "the main thread in consume() at lingering.py"),
]


def last_line(daemon: Daemon) -> str:
    return [line for line in daemon.stderr.splitlines() if "forced to end" in line][-1]


@pytest.mark.parametrize(("deed", "what"), LEFT)
def test_what_will_not_end_is_ended_after_stop_timeout_with_70_and_named(
    live: Live, deed: str, what: str
) -> None:
    daemon = live("lingering", deed, on=SQLITE)
    daemon.wait_for("ticked", count=2)
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)  # to the process alone, and not to its children
    assert daemon.wait(within=20) == Exit.FORCED
    assert time.monotonic() - began >= 1
    assert f"lingering forced to end: stop_timeout of 1 s ran out for {what}" in last_line(daemon)


@pytest.mark.parametrize(("deed", "what"), LEFT)
def test_a_daemon_that_ends_by_itself_is_bounded_too(live: Live, deed: str, what: str) -> None:
    daemon = live("lingering", deed, "--once", on=SQLITE)
    assert daemon.wait(within=20) == Exit.FORCED
    assert what in last_line(daemon)


@pytest.mark.parametrize("deed", ["leave_a_thread", "leave_a_child", "leave_an_exit_function"])
def test_a_second_signal_ends_at_once_what_will_not_end(live: Live, deed: str) -> None:
    daemon = live("lingering", deed, "--stop-timeout", "600s", on=SQLITE)
    daemon.wait_for("ticked")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("lingering stopped: SIGTERM")

    def insisted() -> bool:
        if daemon.is_running:
            daemon.signal(signal.SIGINT)
        return not daemon.is_running

    eventually(insisted, within=20, every=0.3)
    assert daemon.wait() == Exit.FORCED
    assert "a second signal, SIGINT" in last_line(daemon)


def test_a_process_that_leaves_nothing_behind_ends_with_0(live: Live) -> None:
    daemon = live("lingering", "leave_nothing", on=SQLITE)
    daemon.wait_for("ticked")
    assert daemon.stop(within=10) == 0
    assert "forced" not in daemon.stderr


def test_a_worker_is_bounded_too(live: Live) -> None:
    daemon = live("lingering", "leave_a_thread", "--workers", "2", on=SQLITE)
    daemon.wait_for("ticked", count=4)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(within=20) == Exit.FORCED
    assert "thread consumer in consume() at lingering.py" in last_line(daemon)


# Children


def test_the_programs_that_a_cut_tick_had_started_end_with_its_process(live: Live) -> None:
    daemon = live(
        *("lingering", "run_a_program", "--tick-timeout", "1s", "--pulse", "500ms"), on=SQLITE
    )
    daemon.wait_for("child")
    (child,) = eventually(lambda: psutil.Process(daemon.pid).children())
    assert daemon.wait(within=30) == Exit.FORCED
    eventually(lambda: not is_alive(child))


# C code that keeps Python's lock


def test_c_code_that_keeps_pythons_lock_past_its_time_ends_the_process_with_1(live: Live) -> None:
    daemon = live("locking", on=SQLITE)
    daemon.wait_for("tick 3")
    assert daemon.wait(within=30) == 1
    assert "Timeout (0:00:01.5" in daemon.stderr
    assert "locking.py" in daemon.stderr  # the stacks say where


def test_an_idle_daemon_lives_on_past_its_tick_timeout(live: Live) -> None:
    daemon = live(
        *("steady", "--tick-timeout", "200ms", "--pulse", "100ms", "--every", "1s"), on=SQLITE
    )
    daemon.wait_for("session", count=3)
    assert daemon.stop(within=10) == 0


def test_a_program_that_calls_the_command_line_in_its_own_process_goes_on() -> None:
    ran = run_python(
        """
        import time
        from django.core.management import execute_from_command_line
        execute_from_command_line(
            ["manage.py", "run_daemon", "lingering", "leave_nothing", "--once",
             "--stop-timeout", "200ms"]
        )
        time.sleep(1.5)
        print("went on", flush=True)
        """,
        DJANGO_SETTINGS_MODULE="tests.lives.settings",
        DATABASE_URL=SQLITE,
        PYTHONPATH=f"{ROOT}:{ROOT / 'sample_site'}",
    )
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "went on"), ran.stderr
