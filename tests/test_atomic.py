"""``exclusive="atomic"``: the claim of a due time and its work commit together, or neither does."""

from __future__ import annotations

import random
import re
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from daemonkit import BaseDaemonCommand, Every, job
from daemonkit.jobs.atomic import AtomicClaim
from daemonkit.jobs.reading import Choice, read
from daemonkit.testing import FakeClock, Gates
from lab.processes import Daemon
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import Live, Manage, migrate
from tests.kit.sessions import notes
from tests.kit.simulated import wall

NOON = wall("2026-03-02 12:00")
PATIENT = 30.0
Start = Callable[..., Daemon]


@pytest.fixture
def start(manage: Manage, live: Live, server: Server) -> Start:
    """``start()``: a process that runs the daemon ``committing``."""
    migrate(manage, server)
    return partial(live, "committing", on=server)


def atomic(database: str, work: Callable[[BaseDaemonCommand], Any], **details: Any) -> Any:
    """A daemon whose job notes its due time in ``database``, and then calls ``work()``."""

    class Command(BaseDaemonCommand):
        @job(Every(seconds=60), exclusive="atomic", **details)
        def turn(self) -> Any:
            with connections[database].cursor() as cursor:
                cursor.execute("INSERT INTO entry (note) VALUES (%s)", [f"{self.due:%H:%M}"])
            return work(self)

    return Command


def live(command: Any, **options: Any) -> None:
    call_command(command(), clock=FakeClock(NOON), pulse=60, raise_errors=False, **options)


def texts() -> list[str]:
    return [f"{row['due']:%H:%M} {row['status']}" for row in reversed(read(Choice()))]


def test_the_row_of_a_run_is_committed_with_its_work(database: str, server: Server) -> None:
    seen: list[Any] = []

    def work(self: BaseDaemonCommand) -> str:
        seen.append((notes(server), server.execute("SELECT status FROM daemonkit_run")))
        return "done"

    live(atomic(database, work), max_ticks=1)
    assert seen == [([], [])]
    assert notes(server) == ["12:01"]
    (row,) = read(Choice())
    assert (row["status"], row["result"]) == ("ran", "done")


def test_a_run_that_raises_is_rolled_back_and_recorded_as_failed(
    database: str, server: Server
) -> None:
    def work(self: BaseDaemonCommand) -> None:
        raise ValueError("no")

    live(atomic(database, work), max_ticks=1)
    assert notes(server) == []
    (row,) = read(Choice())
    assert (row["status"], row["error"]) == ("failed", "ValueError: no")


def test_a_due_time_that_has_run_is_not_run_again(database: str, server: Server) -> None:
    live(atomic(database, lambda self: None), max_seconds=90)
    live(atomic(database, lambda self: None), max_seconds=90)
    assert notes(server) == ["12:01"]


def test_a_lost_session_takes_the_work_and_its_row_with_it(database: str, server: Server) -> None:
    def work(self: BaseDaemonCommand) -> None:
        if self.attempt == 1:
            server.kill_sessions()

    live(atomic(database, work, retries=1), max_seconds=100)
    assert notes(server) == ["12:01"]
    assert texts() == ["12:01 ran"]


@pytest.mark.one_python
def test_another_process_skips_without_waiting_while_a_run_is_in_progress(
    start: Start, server: Server, gates: Gates
) -> None:
    gate = gates.close("in the transaction")
    first = start()
    gate.wait_for()
    second = start()
    second.wait_for("did not run: overlap", within=PATIENT)
    assert "noted" not in second.so_far
    gate.open()
    for daemon in (first, second):
        assert daemon.stop(within=PATIENT) == 0


def test_a_row_that_another_process_creates_meanwhile_is_locked_too(
    database: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_row, free = AtomicClaim.ensure_row, []

    def in_another_session(claim: AtomicClaim) -> None:
        ensure_row(claim)
        connections[database].close()

    def meanwhile(claim: AtomicClaim) -> None:
        other = threading.Thread(target=in_another_session, args=(claim,))
        other.start()
        other.join(PATIENT)
        ensure_row(claim)

    def work(self: BaseDaemonCommand) -> None:
        free.append(server.execute("SELECT name FROM daemonkit_claim FOR UPDATE SKIP LOCKED"))

    monkeypatch.setattr(AtomicClaim, "create_row", lambda claim, session: None)
    monkeypatch.setattr(AtomicClaim, "ensure_row", meanwhile)
    live(atomic(database, work), max_ticks=1)
    assert free == [[]]


@pytest.mark.one_python
def test_each_due_time_takes_effect_once_although_processes_are_killed(
    start: Start, server: Server
) -> None:
    dice = random.Random(7)
    daemons = [start(), start()]
    for round_ in range(6):
        done = len(notes(server))
        eventually(lambda: len(notes(server)) >= done + 2, within=PATIENT)  # noqa: B023
        victim = dice.randrange(2)
        daemons[victim].signal(signal.SIGKILL)
        daemons[victim].wait()
        daemons[victim] = start()
        if round_ == 3:
            server.kill_sessions()
    for daemon in daemons:
        daemon.wait_for("started", within=PATIENT)
        assert daemon.stop(within=PATIENT) == 0
    server.kill_sessions()  # of the killed
    query = "SELECT due FROM daemonkit_run WHERE status = 'ran'"
    ran = sorted(f"{row[0].timestamp():.2f}" for row in server.execute(query))
    written = notes(server)
    assert len(set(written)) == len(written), "a due time took effect twice"
    assert {_quarter(each) for each in written} == {_quarter(each) for each in ran}


def _quarter(text: str) -> float:
    """The seconds within an hour: servers give their times in different zones."""
    return round(float(text) % 3600, 2)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [("atomically", 'exclusive is True, False or "atomic"'), (None, "exclusive is True")],
)
def test_other_values_of_exclusive_are_refused(value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):

        class Command(BaseDaemonCommand):
            @job(Every(seconds=5), exclusive=value)
            def turn(self) -> None: ...


def test_a_database_other_than_that_of_the_models_is_refused(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = atomic(database, lambda self: None)
    command.__module__ = "shop.management.commands.committing"
    with pytest.raises(CommandError, match="the models of shop are in default") as refused:
        live(command)
    assert refused.value.returncode == 2
