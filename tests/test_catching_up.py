"""What was due while nobody could run it is run once: after a crash or a change of leader."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from daemonkit import BaseDaemonCommand, Cron, Every, Poll
from daemonkit.jobs.reading import Choice, read
from daemonkit.testing import FakeClock
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import LIVES, Manage, migrate
from tests.kit.sessions import notes
from tests.kit.simulated import wall

PATIENT = 30.0


def live(command: type[BaseDaemonCommand], begin: str, hours: float, **options: Any) -> None:
    call_command(command(), clock=FakeClock(wall(begin)), pulse=60, raise_errors=False,
                 max_seconds=hours * 3600, **options)  # fmt: skip


def nightly(work: Callable[[BaseDaemonCommand], Any], **settings: Any) -> type[BaseDaemonCommand]:
    class Command(BaseDaemonCommand):
        schedule = Cron("0 3 * * *", timezone="UTC")
        catch_up = True

        def tick(self) -> Any:
            return work(self)

    for name, value in settings.items():
        setattr(Command, name, value)
    return Command


# Loops


def test_a_loop_with_cron_catches_up_once_and_its_due_times_have_rows(database: str) -> None:
    ran: list[str] = []
    command = nightly(lambda self: ran.append(f"{self.due:%d %H:%M}"))
    live(command, "2026-03-02 02:00", hours=2)
    live(command, "2026-03-04 05:00", hours=1)
    live(command, "2026-03-04 07:00", hours=1)
    assert ran == ["02 03:00", "04 03:00"]
    rows = [
        (f"{row['due']:%d}", row["job"], row["status"], row["reason"]) for row in read(Choice())
    ]
    assert rows == [
        ("04", "tick", "ran", ""),
        ("03", "tick", "skipped", "down"),
        ("02", "tick", "ran", ""),
    ]


def test_a_due_time_of_such_a_loop_that_another_process_has_run_is_not_run_again(
    database: str,
) -> None:
    ran: list[str] = []

    def work(self: BaseDaemonCommand) -> None:
        ran.append(f"{self.due:%d %H:%M}")
        if len(ran) == 1:  # another process of the same daemon, at the same time
            live(nightly(work), "2026-03-02 02:59:59", hours=0.5)

    live(nightly(work), "2026-03-02 02:59:59", hours=0.5)
    assert ran == ["02 03:00"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schedule": Every(seconds=5)}, "it has no times to miss"),
        ({"schedule": Poll()}, "it has no times to miss"),
        ({"ledger": False}, "remove ledger = False"),
        ({"wake_on": "orders"}, "write tick() with Poll()"),
    ],
)
def test_catch_up_that_makes_no_sense_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CommandError, match="has catch_up = True") as refused:
        call_command(nightly(lambda self: None, **changes)())
    assert sentence in str(refused.value)
    assert refused.value.returncode == 2


# Leaders


@pytest.mark.one_python
def test_a_new_leader_runs_the_newest_due_time_that_nobody_has_run(
    manage: Manage, server: Server
) -> None:
    env = {"DATABASE_URL": server.url}
    migrate(manage, server)
    first = manage("run_daemon", "succeeding", manage_py=LIVES, env=env)
    first.wait_for("ran", within=PATIENT)
    second = manage("run_daemon", "succeeding", manage_py=LIVES, env=env)
    second.wait_for("stands by", within=PATIENT)
    first.signal(signal.SIGKILL)
    first.wait()
    leads = second.wait_for("leads, epoch", within=PATIENT)
    ran = second.wait_for("ran ", within=PATIENT)
    began = datetime.fromisoformat(" ".join(leads.split()[:2])).timestamp()
    assert int(ran.split()[1]) <= began
    eventually(lambda: len(notes(server)) >= 4, within=PATIENT)
    assert second.stop(within=PATIENT) == 0
    assert len(set(notes(server))) == len(notes(server)), "a due time ran twice"
