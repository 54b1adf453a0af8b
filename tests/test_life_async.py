"""Lives with async code: real processes that are told to stop, or do not end in time."""

from __future__ import annotations

import signal

import pytest

from daemonkit.testing import Gates
from lab.servers import Server
from tests.kit.processes import Live, signal_until_forced
from tests.kit.sessions import notes

SQLITE = "sqlite://:memory:"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_and_a_server_that_lifespan_opened_serve_every_tick(live: Live, loop: str) -> None:
    daemon = live("supplied", on=SQLITE, LOOP=loop)
    daemon.wait_for("answer ok", count=4)
    assert daemon.stop() == 0
    assert loop in daemon.stdout.splitlines()[0]
    assert daemon.stdout.splitlines()[-1] == "closed"
    assert "failed" not in daemon.stderr


@pytest.mark.parametrize("command", ["awaiting", "awaiting_jobs"])
def test_what_is_overdue_is_cancelled_and_cleans_up_with_the_orm(
    live: Live, server: Server, command: str
) -> None:
    timeout = ["--tick-timeout", "300ms"] if command == "awaiting" else []
    daemon = live(command, "wait_for_ever", *timeout, on=server)
    daemon.wait_for("cleaned up")
    daemon.wait_for("tick of" if command == "awaiting" else "did its deed", count=2)
    assert daemon.stop() == 0
    assert notes(server) == ["cleaned up"]
    assert "in wait_for_ever" in daemon.stderr
    assert "await asyncio.sleep(3600)" in daemon.stderr
    assert "TimeoutError: was cancelled" in daemon.stderr


@pytest.mark.leaves_sessions  # PostgreSQL goes on with a query whose client has gone
@pytest.mark.parametrize("command", ["awaiting", "awaiting_jobs"])
def test_a_query_of_what_is_overdue_is_cut_two_seconds_after_its_task_was_cancelled(
    live: Live, server: Server, command: str
) -> None:
    timeout = ["--tick-timeout", "300ms"] if command == "awaiting" else []
    daemon = live(command, "query_for_ever", *timeout, on=server)
    daemon.wait_for("queries")
    daemon.wait_for("cleaned up")
    daemon.wait_for("tick of" if command == "awaiting" else "did its deed", count=2)
    assert daemon.stop() == 0
    assert "in query_for_ever" in daemon.stderr  # the coroutine
    assert "in sleep" in daemon.stderr  # and the query that its thread is at


def test_a_task_that_will_not_be_cancelled_ends_the_process_with_70(live: Live) -> None:
    daemon = live("awaiting", "refuse_to_end", "--tick-timeout", "300ms", on=SQLITE)
    assert daemon.wait(within=20) == 70
    assert "past its tick_timeout did not return when it was cut" in daemon.stderr


def test_code_that_blocks_the_loop_is_shown_and_ends_the_process_with_70(live: Live) -> None:
    daemon = live("awaiting", "block_the_loop", "--tick-timeout", "300ms", on=SQLITE)
    assert daemon.wait(within=20) == 70
    assert "time.sleep(3600)" in daemon.stderr


def test_sigterm_lets_an_async_tick_finish(live: Live, gates: Gates) -> None:
    gate = gates.close("in the tick")
    daemon = live("awaiting", "pass_a_gate", on=SQLITE)
    gate.wait_for()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("awaiting stops: SIGTERM")
    gate.open()
    assert daemon.wait() == 0
    assert daemon.stdout.splitlines()[0] == "passed"


def test_a_second_signal_cancels_an_async_tick_which_unwinds(live: Live) -> None:
    daemon = live("awaiting", "query_for_ever", on=SQLITE)
    daemon.wait_for("queries")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("awaiting stops: SIGTERM")
    signal_until_forced(daemon)
    daemon.wait_for("cleaned up")
    assert daemon.wait() == 70


@pytest.mark.leaves_sessions
def test_stop_timeout_cancels_an_async_tick(live: Live, server: Server) -> None:
    daemon = live("awaiting", "query_for_ever", "--stop-timeout", "300ms", on=server)
    daemon.wait_for("queries")
    assert daemon.stop(within=10) == 70
    assert "cleaned up" in daemon.stdout


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_tasks_clean_up_when_the_daemon_stops_or_is_reloaded(
    live: Live, server: Server, signum: signal.Signals
) -> None:
    daemon = live("awaiting", "leave_a_task", on=server)
    daemon.wait_for("left a task")
    daemon.wait_for("tick of", count=3)
    daemon.signal(signum)
    daemon.wait_for("cleaned up")
    if signum is signal.SIGHUP:
        daemon.wait_for("left a task", count=2, within=15)
        daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert set(notes(server)) == {"cleaned up"}
