"""Exclusive jobs among real processes: no two run at the same time, whatever becomes of one."""

from __future__ import annotations

import itertools
import re
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from daemonkit.testing import Gates
from lab.processes import Daemon
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import Live, Manage, migrate
from tests.kit.sessions import notes

PATIENT = 30.0

Start = Callable[..., Daemon]


@pytest.fixture
def start(manage: Manage, live: Live, server: Server) -> Start:
    """``start("--fails", "2")``: a process that runs the daemon ``exclusive``."""
    migrate(manage, server)
    return partial(live, "exclusive", on=server)


def skipped(server: Server) -> int:
    """How many due times have passed without a run."""
    query = "SELECT COUNT(*) FROM daemonkit_run WHERE status = 'skipped'"
    return int(server.execute(query)[0][0])


def check(server: Server) -> None:
    """Check that no two runs overlapped, and that none had the due time of another."""
    written = [text.split() for text in notes(server)]
    for first, second in itertools.pairwise(written):
        if first[0] == "begin":
            has_ended = second == ["end", *first[1:]]
            assert has_ended or second[0] == "begin", f"{first} then {second}"
        else:
            assert second[0] == "begin", f"{first} then {second}"
    due = Counter(each[2] for each in written if each[0] == "begin")
    assert set(due.values()) == {1}


def test_no_other_process_runs_the_job_while_a_run_is_longer_than_its_interval(
    start: Start, server: Server, gates: Gates
) -> None:
    gate = gates.close("in the run")
    first = start()
    first.wait_for("begins", within=PATIENT)
    gate.wait_for()
    second = start()
    second.wait_for("started", within=PATIENT)
    before = skipped(server)
    eventually(lambda: skipped(server) >= before + 8, within=PATIENT)
    assert "begins" not in second.so_far
    gate.open()
    first.wait_for("ended", within=PATIENT)
    eventually(lambda: len(notes(server)) > 8, within=PATIENT)
    for daemon in (first, second):
        assert daemon.stop(within=PATIENT) == 0
    check(server)


def test_the_job_of_a_killed_process_is_run_by_the_other_one(
    start: Start, server: Server, gates: Gates
) -> None:
    gate = gates.close("in the run")
    first = start()
    gate.wait_for()
    second = start()
    second.wait_for("started", within=PATIENT)
    first.signal(signal.SIGKILL)
    first.wait()
    gate.open()
    second.wait_for("ended", within=PATIENT)
    assert second.stop(within=PATIENT) == 0
    check(server)


def test_a_frozen_run_has_lost_its_claim_when_the_other_process_begins(
    start: Start, server: Server, gates: Gates
) -> None:
    gate = gates.close("in the run")
    first = start()
    gate.wait_for()
    first.signal(signal.SIGSTOP)
    second = start()
    second.wait_for("begins", within=PATIENT)
    first.signal(signal.SIGCONT)
    gate.open()
    first.wait_for("lost its claim", within=PATIENT)
    first.wait_for(re.compile("^stale|tick 1 failed"), within=PATIENT)
    second.wait_for("ended", within=PATIENT)
    for daemon in (first, second):
        assert daemon.stop(within=PATIENT) == 0
    check(server)


def test_once_waits_for_the_claim_and_ends_with_1_if_another_process_keeps_it(
    start: Start, server: Server, gates: Gates
) -> None:
    gate = gates.close("in the run")
    first = start()
    gate.wait_for()
    second = start("--once", "--job", "turn")
    assert second.wait(PATIENT) == 1
    host = r"\S+"
    assert re.search(rf"did not run turn: {host}:{first.pid} runs it", second.output)
    gate.open()
    assert first.stop(within=PATIENT) == 0
    check(server)


def test_the_claim_is_kept_between_two_tries(start: Start, server: Server) -> None:
    first = start("--fails", "2")
    first.wait_for("attempt 3", within=PATIENT)
    assert first.stop(within=PATIENT) == 0
    query = "SELECT attempt, status FROM daemonkit_run WHERE status = 'ran'"
    assert (3, "ran") in {tuple(row) for row in server.execute(query)}
