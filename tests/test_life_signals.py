"""Signals are heard whatever a tick does to handlers, wake-up descriptor and mask."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from django.core.management import call_command

from daemonkit import BaseDaemonCommand, Every
from daemonkit.process.signal_handlers import on_signals, restore_signals
from daemonkit.testing import Gates
from lab.processes import ROOT, child_environment
from lab.waiting import eventually
from tests.kit.processes import Live

SQLITE = "sqlite://:memory:"

DEEDS = [
    *["leave_a_handler", "leave_it_ignored", "leave_it_to_the_system", "leave_no_descriptor"],
    *["leave_it_blocked", "run_asyncio", "run_asyncio_for_sigterm", "run_uvloop", "run_trio"],
]
HEARD_MEANWHILE = ["leave_a_handler", "leave_no_descriptor", "leave_it_blocked", "run_asyncio",
                   "run_uvloop", "run_trio"]  # fmt: skip


@pytest.mark.parametrize("deed", DEEDS)
def test_sigterm_is_heard_after_a_tick_that_has_taken_it(live: Live, deed: str) -> None:
    daemon = live("grabbing", deed, on=SQLITE)
    daemon.wait_for("done")
    daemon.wait_for("tick of", count=3)
    assert daemon.stop(within=10) == 0
    assert "grabbing stopped: SIGTERM" in daemon.stderr


@pytest.mark.parametrize("deed", HEARD_MEANWHILE)
def test_sigterm_is_heard_during_a_tick_that_has_taken_the_descriptor(
    live: Live, gates: Gates, deed: str
) -> None:
    gate = gates.close("in the tick")
    daemon = live("grabbing", deed, on=SQLITE)
    gate.wait_for()
    daemon.signal(signal.SIGTERM)
    gate.open()
    assert daemon.wait(within=10) == 0
    assert daemon.stdout.count("tick of") == 1
    assert "grabbing stopped: SIGTERM" in daemon.stderr


@pytest.mark.parametrize("deed", ["leave_no_descriptor", "run_asyncio", "leave_it_blocked"])
def test_sighup_restarts_it_after_a_tick_that_has_taken_the_signals(live: Live, deed: str) -> None:
    daemon = live("grabbing", deed, on=SQLITE)
    daemon.wait_for("done")
    daemon.wait_for("tick of", count=3)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("grabbing started", count=2, within=15)
    daemon.wait_for("done", count=2)
    assert daemon.stop(within=10) == 0


def test_one_signal_is_counted_once_though_both_handlers_report_it(
    live: Live, gates: Gates
) -> None:
    """Python runs its handler when the tick goes on, long after C has told of the signal."""
    gate = gates.close("tick")
    daemon = live("gated", on=SQLITE)
    gate.wait_for()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("gated stops: SIGTERM")
    gate.open()
    assert daemon.wait(within=10) == 0
    assert "forced" not in daemon.stderr


def test_what_a_tick_has_changed_is_logged_once(live: Live) -> None:
    daemon = live("old_bot", "--every", "50ms", "--pulse", "100ms", on=SQLITE)
    daemon.wait_for("polled", count=3)
    assert daemon.stop(within=10) == 0
    changed = "a tick has changed the handler of SIGINT, the wake-up descriptor; it is put back"
    assert daemon.stderr.count(changed) == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_an_old_command_that_handles_signals_itself_is_stopped_and_restarted(
    live: Live, gates: Gates, signum: signal.Signals
) -> None:
    gate = gates.close("in the tick")
    daemon = live("old_bot", "--every", "50ms", on=SQLITE)
    gate.wait_for()
    daemon.signal(signum)
    gate.open()
    if signum is signal.SIGHUP:
        daemon.wait_for("old_bot started", count=2, within=15)
        daemon.signal(signal.SIGTERM)
    assert daemon.wait(within=10) == 0


def test_a_handler_that_a_tick_puts_in_place_of_ours_is_logged_while_it_stands(
    live: Live, gates: Gates
) -> None:
    gate = gates.close("in the tick")
    daemon = live("grabbing", "leave_it_ignored", on=SQLITE)
    gate.wait_for()
    daemon.wait_for("a tick has replaced the handler of SIGTERM, which is lost until")
    gate.open()
    daemon.wait_for("done")
    daemon.wait_for("tick of", count=3)
    assert daemon.stop(within=10) == 0
    assert daemon.stderr.count("has replaced the handler of SIGTERM") == 1


# In one process


@pytest.fixture
def sent() -> Iterator[list[signal.Signals]]:
    """The signals that reach whoever called a daemon."""
    received: list[signal.Signals] = []

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(signum))

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {signum: signal.signal(signum, receive) for signum in signals}
    yield received
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_put_back_says_what_had_been_changed() -> None:
    with on_signals() as watcher:
        assert restore_signals() == []
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        assert restore_signals() == [
            "the handler of SIGINT",
            "the wake-up descriptor",
            "the mask of SIGHUP",
        ]
        assert restore_signals() == []
        signal.raise_signal(signal.SIGINT)
        eventually(lambda: watcher.stop.asked)
        off_the_main_thread: list[list[str]] = []
        thread = threading.Thread(target=lambda: off_the_main_thread.append(restore_signals()))
        thread.start()
        thread.join()
        assert off_the_main_thread == [[]]
    assert restore_signals() == []


def test_every_one_of_a_hundred_signals_is_heard_with_and_without_the_descriptor() -> None:
    for number in range(100):
        with on_signals() as watcher:
            if number % 2:
                signal.set_wakeup_fd(-1)
            signal.raise_signal(signal.SIGTERM)
            assert not watcher.stop.wait(30)
            assert not watcher.stop.forced


class Sent(BaseDaemonCommand):
    """Its second tick sends its own process a signal."""

    schedule = Every(0.01)
    signum = signal.SIGTERM
    ticks = 0

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == 2:
            signal.raise_signal(self.signum)
            self.wait(30)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_caller_of_a_daemon_gets_the_signal_that_stopped_it(
    sent: list[signal.Signals], signum: signal.Signals
) -> None:
    daemon = Sent()
    daemon.signum = signum
    call_command(daemon)
    assert (daemon.ticks, sent) == (2, [signum])


def test_a_callers_ctrl_c_is_an_interrupt_for_it() -> None:
    daemon = Sent()
    daemon.signum = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        call_command(daemon)


def test_a_caller_gets_no_signal_where_there_was_none(sent: list[signal.Signals]) -> None:
    call_command(Sent(), max_ticks=1)
    assert sent == []


SCRIPT = """
import django
django.setup()
from django.core.management import call_command
call_command({command})
print("AND NOW THE NEXT STEP RUNS", flush=True)
"""


@pytest.mark.parametrize("command", ["'steady'", "'run_daemon', 'steady'"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_script_that_gets_a_signal_while_it_runs_a_daemon_ends(
    tmp_path: Path, signum: signal.Signals, command: str
) -> None:
    script = tmp_path / "deploy.py"
    script.write_text(SCRIPT.format(command=command))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=child_environment(
            {
                "DJANGO_SETTINGS_MODULE": "tests.lives.settings",
                "DATABASE_URL": f"sqlite:///{tmp_path / 'site.sqlite3'}",
                "PYTHONPATH": f"{ROOT}:{ROOT / 'sample_site'}",
            }
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("session" in line for line in lines)
        process.send_signal(signum)
        rest = process.stdout.read()
        assert process.wait(30) == -signum
        assert "closed" in rest
        assert "NEXT STEP" not in rest
    finally:
        process.kill()
        process.stdout.close()  # type: ignore[union-attr]


# Restarting


@pytest.mark.parametrize(
    "limit", [["--once"], ["--max-ticks", "1"], ["--max-seconds", "1h"]], ids=lambda limit: limit[0]
)
def test_sighup_stops_a_daemon_that_was_started_with_a_limit(
    live: Live, gates: Gates, limit: list[str]
) -> None:
    gate = gates.close("tick")
    daemon = live("gated", *limit, on=SQLITE)
    gate.wait_for()
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("gated stops: SIGHUP")
    gate.open()
    assert daemon.wait(within=10) == 0
    assert daemon.stdout.count("passed") == 1
    assert daemon.stderr.count("gated started") == 1


def test_sighup_while_the_class_is_imported_stops_a_daemon_with_a_limit(
    live: Live, gates: Gates
) -> None:
    gate = gates.close("in the import")
    daemon = live("late_import", "--once", on=SQLITE)
    gate.wait_for()
    daemon.signal(signal.SIGHUP)
    gate.open()
    assert daemon.wait(within=15) == 0
    assert daemon.stdout.count("importing") == 1
