"""Work that ends by itself: ``--until-empty``, ``--max-work`` and ``self.finish()``."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command

from daemonkit import BaseDaemonCommand, Clock, Every, Exit, Iteration, Poll
from daemonkit.clock import Moment
from daemonkit.errors import Problem
from daemonkit.schedules import backoff
from daemonkit.schedules.backoff import Backoff, after_failure
from daemonkit.testing import FakeClock
from lab.processes import Daemon
from lab.servers import Server
from tests.kit.processes import Live

BOTH = pytest.mark.parametrize("arguments", [(), ("--workers", "3")], ids=["alone", "workers"])


def fill(server: Server, rows: int = 5) -> None:
    for _ in range(rows):
        server.execute("INSERT INTO entry (note) VALUES ('x')")


def last_line(daemon: Daemon) -> str:
    return daemon.stderr.splitlines()[-1]


@BOTH
def test_until_empty_ends_with_0_when_nothing_is_left_and_says_what_waits(
    live: Live, server: Server, arguments: tuple[str, ...]
) -> None:
    fill(server)
    daemon = live("finite", "--until-empty", *arguments, on=server)
    assert daemon.wait(30) == 0
    assert server.execute("SELECT COUNT(*) FROM entry") == [(0,)]
    assert "stopped: nothing is left to do; 3 rows wait for a retry" in last_line(daemon)
    assert "WARNING" not in daemon.stderr
    assert "ERROR" not in daemon.stderr


@BOTH
def test_finish_ends_the_daemon_and_all_its_workers_with_0_and_without_a_warning(
    live: Live, server: Server, arguments: tuple[str, ...]
) -> None:
    fill(server)
    daemon = live("finite", "--finish", *arguments, on=server)
    assert daemon.wait(30) == 0
    assert "stopped: the year is over" in last_line(daemon)
    assert "WARNING" not in daemon.stderr
    assert "ERROR" not in daemon.stderr


def test_max_work_counts_the_ticks_that_found_something(live: Live, server: Server) -> None:
    fill(server)
    daemon = live("finite", "--max-work", "3", on=server)
    assert daemon.wait(30) == 0
    assert server.execute("SELECT COUNT(*) FROM entry") == [(2,)]
    assert "max_work of 3 reached" in last_line(daemon)


class Finding(BaseDaemonCommand):
    """Returns, or raises, one thing after the other."""

    schedule = Poll(idle=5)
    found: list[Any]

    def __init__(self, *found: Any) -> None:
        super().__init__()
        self.found = list(found)

    def tick(self) -> Any:
        each = self.found.pop(0)
        if isinstance(each, Exception):
            raise each
        return each


def run(command: BaseDaemonCommand, **options: Any) -> None:
    call_command(command, clock=FakeClock(), raise_errors=False, **options)


def test_a_tick_that_failed_has_not_found_nothing() -> None:
    command = Finding(1, ValueError(), 1, 0, "never")
    run(command, until_empty=True)
    assert command.found == ["never"]


def test_idle_ticks_and_failed_ticks_are_no_work() -> None:
    command = Finding(0, 1, ValueError(), 0, 1, "never")
    run(command, max_work=2)
    assert command.found == ["never"]


@pytest.mark.parametrize("option", ["until_empty", "max_work"])
def test_other_schedules_do_not_say_whether_there_is_work(option: str) -> None:
    flag = option.replace("_", "-")
    with pytest.raises(CommandError, match=f"--{flag} is for a daemon with Poll") as refused:
        run(Finding(), schedule=Every(30), **{option: 1})
    assert refused.value.returncode == Exit.USAGE


def test_finish_outside_a_life_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call it in a tick or a job"):
        Finding().finish("why")


# A long tick that makes progress


@pytest.mark.parametrize(
    ("seconds", "cut", "outages"), [(59, False, 0), (60, False, 1), (60, True, 0)]
)
def test_a_connection_lost_after_a_minute_of_work_counts_as_an_outage(
    monkeypatch: pytest.MonkeyPatch, seconds: float, cut: bool, outages: int
) -> None:
    monkeypatch.setattr(backoff, "classify", lambda error: Problem.LOST)
    now = Clock().moment()
    tick = Iteration(1, Moment(*now), now, seconds)
    failed = after_failure(tick, ValueError(), None, Backoff(), cut_by_us=cut)
    assert (failed.failures, failed.outages) == (1, outages)
