"""Pollers as processes, whose workers are killed, frozen and cut off at any instant."""

from __future__ import annotations

import random
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections

import daemonkit
from daemonkit.models import PollerRow
from daemonkit.testing.gates import Gates
from lab.pgbouncer import PgBouncer
from lab.processes import Daemon
from lab.servers import PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.processes import Live
from tests.kit.queues import queue_tables
from tests.kit.waking import woken_through
from tests.queues.models import Effect, Letter

pytestmark = [pytest.mark.leaves_sessions, pytest.mark.one_python]


class Office:
    """The letters of a test on one server, the processes that post them, and what they did."""

    def __init__(self, server: Server, alias: str, live: Live, outside: Path) -> None:
        self.server, self.alias, self.outside = server, alias, outside
        self.url = server.url
        self._live = live
        outside.mkdir()

    def write(self, count: int, kind: str = "good") -> list[str]:
        """Put letters into the queue, and return their keys."""
        Letter.objects.using(self.alias).bulk_create([Letter(kind=kind) for _ in range(count)])
        newest = Letter.objects.using(self.alias).order_by("-pk").values_list("pk", flat=True)
        return sorted(map(str, newest[:count]))

    def start(self, *arguments: str, **env: str) -> Daemon:
        """Start a process that posts them."""
        return self._live("posting", *arguments, on=self.url, OUTSIDE=str(self.outside), **env)

    def cut_sessions(self) -> None:
        connections[self.alias].close()  # the test's own
        self.server.kill_sessions()

    @property
    def waiting(self) -> int:
        """How many letters are in the queue and are no dead letters."""
        unsent = Letter.objects.using(self.alias).filter(sent=None).count()
        return unsent - PollerRow.objects.using(self.alias).filter(dead=True).count()

    def empty(self, within: float = 60.0) -> None:
        eventually(lambda: not self.waiting, within, "the queue is empty", every=0.05)

    @property
    def inside(self) -> Counter[str]:
        """How often each letter was posted, as committed in the database."""
        return Counter(Effect.objects.using(self.alias).values_list("letter", flat=True))

    @property
    def posted(self) -> Counter[str]:
        """How often each letter was posted, outside of the database."""
        return Counter(line for each in self.outside.iterdir() for line in each.read_text().split())

    @property
    def rows(self) -> list[PollerRow]:
        return list(PollerRow.objects.using(self.alias).order_by("key"))


@pytest.fixture
def office(server: Server, alias: MakeAlias, live: Live, tmp_path: Path) -> Iterator[Office]:
    name = alias(server)
    with queue_tables(name):
        yield Office(server, name, live, tmp_path / "outside")


@pytest.mark.parametrize("claim", ["transaction", "lease"])
def test_whatever_is_killed_each_letter_is_posted_and_in_transactions_exactly_once(
    office: Office, claim: str
) -> None:
    post_under_kills(office, claim)


@pytest.mark.parametrize("claim", ["transaction", "lease"])
def test_the_same_holds_behind_pgbouncer(
    postgres: PostgreSQL, alias: MakeAlias, live: Live, tmp_path: Path, claim: str
) -> None:
    if reason := PgBouncer.why_missing():
        pytest.skip(reason)
    name = alias(postgres)
    with queue_tables(name), PgBouncer(postgres) as bouncer:
        office = Office(postgres, name, live, tmp_path / "outside")
        office.url = postgres.url.replace(f":{postgres.port}", f":{bouncer.port}")
        assert office.url != postgres.url
        post_under_kills(office, claim)


@pytest.mark.parametrize("claim", ["transaction", "lease"])
def test_a_frozen_process_and_a_restarted_server_leave_no_letter_behind(
    office: Office, claim: str
) -> None:
    good = office.write(300)
    frozen, other = (office.start("--workers", "2", CLAIM=claim) for _ in range(2))
    eventually(lambda: sum(office.posted.values()) > 20, within=30)
    frozen.signal_group(signal.SIGSTOP)
    posted = sum(office.posted.values())
    eventually(lambda: sum(office.posted.values()) > posted + 20 or not office.waiting, within=30)
    connections[office.alias].close()
    office.server.restart()
    frozen.signal_group(signal.SIGCONT)
    office.empty()
    for daemon in (frozen, other):
        assert daemon.stop(within=30) == 0, daemon.output
    assert sorted(office.posted) == good
    if claim == "transaction":
        assert office.inside == Counter(good)
    assert office.rows == []


def post_under_kills(office: Office, claim: str) -> None:
    """Post letters with three processes of two workers. Kill a process, or all sessions, again and
    again, and then look what has become of the letters."""
    chance = random.Random(17)
    good, poison = office.write(400), office.write(4, "poison")
    env = {"CLAIM": claim, "THREADS": "4" if claim == "lease" else "1"}
    daemons = [office.start("--workers", "2", **env) for _ in range(3)]
    for round_ in range(6):
        posted = sum(office.posted.values())
        eventually(lambda p=posted: sum(office.posted.values()) > p + 20 or not office.waiting, 30)  # type: ignore[misc]
        victim = chance.randrange(len(daemons))
        if round_ % 2:
            office.cut_sessions()
        else:
            daemons[victim].signal_group(signal.SIGKILL)
            daemons[victim] = office.start("--workers", "2", **env)
    office.empty()
    for daemon in daemons:
        daemon.wait_for("started", within=30)
        assert daemon.stop(within=30) == 0, daemon.output
    assert sorted(office.posted) == sorted(good + poison)
    if claim == "transaction":
        assert office.inside == Counter(good)
    assert [(row.key, row.attempts, row.dead, row.owner) for row in office.rows] == [
        (key, 3, True, "") for key in poison
    ]


def test_the_rows_of_a_killed_owner_are_done_by_others_after_claim_seconds(
    office: Office,
) -> None:
    (gated,) = office.write(1, "gate")
    good = office.write(5)
    with Gates() as gates:
        gate = gates.close(f"letter {gated}")
        env = {"CLAIM": "lease", "CLAIM_SECONDS": "2"}
        first = office.start(**env)
        gate.wait_for()
        second = office.start(**env)
        second.wait_for("started", within=20)
        assert office.waiting == 6  # all are leased
        first.signal_group(signal.SIGKILL)
        gate.open()
        office.empty(within=20)
    assert office.posted == Counter([gated, gated, *good])
    assert office.rows == []
    assert second.stop() == 0


def test_a_lease_is_renewed_while_the_work_goes_on(office: Office) -> None:
    (gated,) = office.write(1, "gate")
    with Gates() as gates:
        gate = gates.close(f"letter {gated}")
        env = {"CLAIM": "lease", "CLAIM_SECONDS": "1"}
        first = office.start(**env)
        gate.wait_for()
        ends = {office.rows[0].not_before}

        def is_renewed() -> bool:
            ends.add(office.rows[0].not_before)
            return len(ends) > 6

        second = office.start(**env)
        eventually(is_renewed, within=20)
        gate.open()
        office.empty(within=20)
    assert office.posted == Counter([gated])
    assert first.stop() == 0
    assert second.stop() == 0


def test_a_frozen_owner_loses_its_rows_and_cannot_finish_them(office: Office) -> None:
    (gated,) = office.write(1, "gate")
    with Gates() as gates:
        gate = gates.close(f"letter {gated}")
        env = {"CLAIM": "lease", "CLAIM_SECONDS": "1"}
        first = office.start(**env)
        gate.wait_for()
        first.signal_group(signal.SIGSTOP)
        gate.open()
        second = office.start(**env)
        office.empty(within=20)
        first.signal_group(signal.SIGCONT)
        first.wait_for(re.compile("leases lost|another process has taken"), within=20)
    assert office.posted == Counter({gated: 2})
    assert first.stop() == 0
    assert second.stop() == 0
    assert office.rows == []


def test_a_stop_during_a_batch_leaves_the_rest_to_others(office: Office) -> None:
    keys = office.write(50)
    daemon = office.start(WORK="0.05", BATCH="50")
    eventually(lambda: sum(office.posted.values()) >= 3, within=20)
    assert daemon.stop() == 0
    assert 0 < len(office.inside) < 50
    assert office.inside == Counter(office.posted.keys())
    second = office.start(WORK="0")
    office.empty()
    assert second.stop() == 0
    assert office.inside == Counter(keys)


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_until_empty_ends_a_poller_whose_rows_are_done_or_wait(
    office: Office, arguments: tuple[str, ...]
) -> None:
    good, poison = office.write(30), office.write(1, "poison")
    daemon = office.start("--until-empty", *arguments, FIRST_PAUSE="600")
    assert daemon.wait(60) == 0, daemon.output
    assert office.inside == Counter(good)
    assert [(row.key, row.attempts, row.dead) for row in office.rows] == [(poison[0], 1, False)]
    assert "nothing is left to do; 1 row waiting for a retry or leased" in daemon.output


def test_a_wake_up_ends_the_wait_of_a_poller(office: Office) -> None:
    with woken_through(office.alias):
        daemon = office.start(WAKE_ON="letters", IDLE="3600")
        daemon.wait_for("waits", within=30)
        good = office.write(3)
        daemonkit.wake("letters")
        office.empty(within=30)
    assert office.posted == Counter(good)
    assert daemon.stop(within=30) == 0
