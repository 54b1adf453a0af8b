"""A claim, beside the lease and by its rules, on each kind of database."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from django.db import connections

from daemonkit import StaleEpoch
from daemonkit.connections.private_session import PrivateSession
from daemonkit.leading.claim import Claim, ClaimLost
from daemonkit.leading.fencing import guarded_by
from daemonkit.leading.rows import ClaimRow
from daemonkit.leading.terms import Terms
from daemonkit.models import Claim as ClaimModel
from daemonkit.process.identity import this_process
from tests.kit.aliases import MakeAlias
from tests.kit.tables import empty_table

TABLE = ClaimModel._meta.db_table
TERMS = Terms.of(15)
Holding = Callable[..., Claim]


class SetClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["mariadb", "postgres", "sqlite"])
def database(
    request: pytest.FixtureRequest, alias: MakeAlias, settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:  # fmt: skip
    """An alias with an empty table of claims, which is daemonkit's database."""
    kind = request.param
    name = alias(None if kind == "sqlite" else request.getfixturevalue(kind))
    monkeypatch.setitem(settings.DATABASES, name, connections.settings[name])
    settings.DAEMONKIT = {"database": name}
    with empty_table(ClaimModel, name):
        yield name


@pytest.fixture
def claim(database: str, clock: SetClock) -> Iterator[Holding]:
    """``claim("report")``: a claim to that name, each time one of another holder."""
    session = PrivateSession(database, seconds=5)
    execute = functools.partial(session.execute, within=5)

    def make(name: str = "report", clock: Callable[[], float] = clock) -> Claim:
        row = ClaimRow(TABLE, name, execute, connections[database].vendor)
        return Claim(row, TERMS, str(this_process()), clock)

    yield make
    session.close()


def rows(database: str) -> list[ClaimModel]:
    return list(ClaimModel.objects.using(database).order_by("name"))


def test_one_holds_it_and_the_next_takes_it_with_a_greater_epoch_when_it_is_given_back(
    claim: Holding,
) -> None:
    first, second = claim(), claim()
    assert first.take()
    assert not second.take()
    assert second.epoch is None
    assert first.epoch is not None
    epoch = first.epoch
    first.give_back()
    assert first.epoch is None
    assert second.take()
    assert second.epoch == epoch + 1


def test_claims_of_other_names_are_apart(claim: Holding) -> None:
    assert claim("report").take()
    assert claim("prices").take()


def test_it_is_taken_over_when_it_has_not_changed_for_its_seconds(
    claim: Holding, clock: SetClock
) -> None:
    dead, next_one = claim(), claim()
    dead.take()
    assert not next_one.take()
    clock.now += TERMS.duration - 0.1
    assert not next_one.take()
    clock.now += 0.2
    assert next_one.take()
    assert next_one.epoch == (dead.epoch or 0) + 1
    with pytest.raises(ClaimLost, match="took the claim"):
        dead.renew()


def test_a_renewal_that_was_seen_restarts_the_wait(claim: Holding, clock: SetClock) -> None:
    working, next_one = claim(), claim()
    working.take()
    for _ in range(5):
        assert not next_one.take()
        clock.now += TERMS.duration - 6
        working.renew()
    assert working.left > 0


def test_a_holder_stops_trusting_itself_before_anyone_may_take_over(
    claim: Holding, clock: SetClock
) -> None:
    frozen, next_one = claim(), claim()
    frozen.take()
    next_one.look()
    clock.now += TERMS.renew_deadline
    assert frozen.left <= 0
    assert not next_one.is_free


def test_of_many_who_make_the_row_one_wins(claim: Holding, database: str) -> None:
    racers = [claim() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = [racer for racer, taken in zip(racers, pool.map(Claim.take, racers), strict=True)
               if taken]  # fmt: skip
    assert len(won) == 1
    assert [row.holder for row in rows(database)] == [won[0].holder]


def test_two_claims_of_one_process_do_not_take_each_others(claim: Holding) -> None:
    assert claim().take()
    assert not claim().take()


# Rows do not grow without bound, and an epoch only grows


def forget_for(database: str, days: int) -> None:
    """Make the rows look untouched for this many days."""
    with connections[database].cursor() as cursor:
        cursor.execute(f"SELECT max(touched) FROM {TABLE}")
        (touched,) = cursor.fetchone()
    if isinstance(touched, str):
        touched = datetime.fromisoformat(touched)
    earlier = touched.replace(year=touched.year - 1) if days > 90 else touched
    with connections[database].cursor() as cursor:
        cursor.execute(f"UPDATE {TABLE} SET touched = %s", (earlier,))


def test_unused_rows_are_deleted_when_another_claim_is_made(claim: Holding, database: str) -> None:
    claim("old").take()
    claim("prices").take()
    assert [row.name for row in rows(database)] == ["old", "prices"]
    forget_for(database, days=365)
    claim("new").take()
    assert [row.name for row in rows(database)] == ["new"]


def test_the_epoch_of_a_row_that_is_made_again_is_greater_than_all_before(
    claim: Holding, database: str
) -> None:
    epochs = []
    for _ in range(3):
        for _ in range(3):
            held = claim()
            assert held.take()
            epochs.append(held.epoch or 0)
            held.give_back()
        ClaimModel.objects.using(database).all().delete()
    assert epochs == sorted(set(epochs))


def test_a_holder_whose_row_is_gone_is_told(claim: Holding, database: str) -> None:
    held = claim()
    held.take()
    ClaimModel.objects.using(database).all().delete()
    with pytest.raises(ClaimLost, match="its row is gone"):
        held.renew()


# Guarded


def write(database: str) -> None:
    with connections[database].cursor() as cursor:
        cursor.execute("INSERT INTO entry (note) VALUES ('guarded')")


def written(database: str) -> int:
    with connections[database].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM entry")
        return int(cursor.fetchone()[0])


def test_what_a_holder_writes_under_guard_is_committed(claim: Holding, database: str) -> None:
    held = claim()
    held.take()
    with guarded_by("report", held.epoch, seconds_left=lambda: held.left):
        write(database)
    assert written(database) == 1


def test_what_a_former_holder_writes_under_guard_is_rolled_back(
    claim: Holding, clock: SetClock, database: str
) -> None:
    frozen, next_one = claim(), claim()
    frozen.take()
    next_one.look()
    clock.now += TERMS.duration
    assert next_one.take()
    with pytest.raises(StaleEpoch, match="of report is over"), guarded_by("report", frozen.epoch):
        write(database)
    assert written(database) == 0
    with guarded_by("report", next_one.epoch):
        write(database)
    assert written(database) == 1
