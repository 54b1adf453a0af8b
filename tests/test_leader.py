"""The rules of the lease, its private session, and guarded writes, on real servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connections, transaction

from daemonkit import BaseDaemonCommand, Cron, Every, Moment, Schedule, StaleEpoch, guarded
from daemonkit.clock import Clock
from daemonkit.connections.private_session import PrivateSession
from daemonkit.leading.claim import ClaimLost
from daemonkit.leading.leader import Leadership
from daemonkit.leading.lease import Candidate
from daemonkit.leading.rows import LeaseRow, Row
from daemonkit.leading.terms import Terms
from daemonkit.life import Life
from daemonkit.pace import Pace
from daemonkit.process.identity import this_process
from daemonkit.settings.settings import Settings
from daemonkit.testing import FakeClock
from lab.servers import PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.leases import TABLE, epoch, holder, lease_table
from tests.kit.sessions import notes

TERMS = Terms()


class SetClock(Clock):
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def since_boot(self) -> float:
        return self.now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def probe(server: Server, alias: MakeAlias) -> Iterator[str]:
    """An alias with an empty lease table."""
    name = alias(server)
    with lease_table(name):
        yield name


@pytest.fixture
def ticking() -> SetClock:
    return SetClock()


@pytest.fixture
def candidate(probe: str, ticking: SetClock) -> Callable[..., Candidate]:
    """``candidate("a")``: a candidate for the lease "sync" that uses the test's clock."""

    def make(holder: str, terms: Terms = TERMS, execute: Any = None) -> Candidate:
        row = LeaseRow(TABLE, "sync", execute or executing(probe))
        return Candidate(row, terms, f"host:{holder}:token", ticking)

    return make


def executing(alias: str) -> Any:
    def execute(sql: str, params: Sequence[Any]) -> tuple[int, list[tuple[Any, ...]]]:
        with connections[alias].cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.rowcount, cursor.fetchall() if cursor.description else []

    return execute


Campaigner = Callable[..., Candidate]


# The rules


def test_the_first_candidate_leads_with_epoch_1_and_the_second_sees_its_name(
    candidate: Campaigner,
) -> None:
    first, second = candidate("1"), candidate("2")
    assert first.take()
    assert first.term is not None
    assert first.term.epoch == 1
    assert not second.take()
    assert second.other_holder == "host:1"
    assert second.term is None


def test_a_released_lease_is_free_at_once_and_the_epoch_grows(
    candidate: Campaigner,
) -> None:
    first, second = candidate("1"), candidate("2")
    first.take()
    second.take()
    first.give_back()
    assert first.term is None
    assert second.take()
    assert second.term is not None
    assert second.term.epoch == 2


def test_a_lease_is_free_when_it_was_not_renewed_for_its_duration(
    candidate: Campaigner, ticking: SetClock
) -> None:
    first, second = candidate("1"), candidate("2")
    first.take()
    ticking.pass_(100)  # a new candidate has seen no row yet
    assert not second.take()
    ticking.pass_(14.9)
    assert not second.take()
    ticking.pass_(0.1)
    assert second.take()


def test_a_renewal_restarts_the_wait_of_a_standby(candidate: Campaigner, ticking: SetClock) -> None:
    first, second = candidate("1"), candidate("2")
    first.take()
    second.take()
    assert not second.sees_a_leader_at_work
    ticking.pass_(9)
    first.renew()
    ticking.pass_(5)
    second.take()
    assert second.sees_a_leader_at_work
    ticking.pass_(14.9)
    assert not second.take()


def test_the_duration_in_the_row_counts_and_not_that_of_the_standby(
    candidate: Campaigner, ticking: SetClock
) -> None:
    """If two hosts have different settings, the shorter lease of one frees nothing early."""
    first, second = candidate("1", Terms.of(60)), candidate("2", Terms.of(3))
    first.take()
    second.take()
    ticking.pass_(59)
    assert not second.take()


def test_a_leader_stops_before_another_process_can_lead(
    candidate: Campaigner, ticking: SetClock
) -> None:
    first = candidate("1")
    first.take()
    assert first.left == 10
    ticking.pass_(10)
    assert first.left <= 0
    assert first.pause() == 0


def test_the_renew_deadline_counts_from_before_the_renewal_was_sent(
    candidate: Campaigner, probe: str, ticking: SetClock
) -> None:
    plain = executing(probe)

    def slow(sql: str, params: Sequence[Any]) -> Any:
        answer = plain(sql, params)
        ticking.pass_(3)  # the statement was fast, and the answer slow
        return answer

    first = candidate("1", execute=slow)
    first.take()
    assert first.left == 10 - 3
    first.renew()
    assert first.left == 10 - 3


def test_a_standbys_wait_counts_from_the_answer_that_showed_a_change(
    candidate: Campaigner, probe: str, ticking: SetClock
) -> None:
    plain = executing(probe)

    def slow(sql: str, params: Sequence[Any]) -> Any:
        ticking.pass_(3)  # the row may have been renewed just before the answer
        return plain(sql, params)

    first, second = candidate("1"), candidate("2", execute=slow)
    first.take()
    second.take()
    ticking.pass_(11.9)
    assert not second.take()  # 14.9 s after the first answer
    assert second.take()


def test_of_two_concurrent_attempts_one_succeeds(candidate: Campaigner, ticking: SetClock) -> None:
    crashed, first, second = candidate("0"), candidate("1"), candidate("2")
    crashed.take()
    first.take()
    second.take()
    ticking.pass_(15)
    second.look()
    assert first.take()
    assert second.take_as_seen() is False  # it looked before the first one acquired it
    assert second.term is None
    assert not second.take()


def test_a_renewal_in_the_last_moment_keeps_the_lease(
    candidate: Campaigner, ticking: SetClock
) -> None:
    first, second = candidate("1"), candidate("2")
    first.take()
    second.take()
    ticking.pass_(15)
    first.renew()
    assert second.take_as_seen() is False  # it has not seen the renewal
    first.renew()


def test_of_many_concurrent_inserts_of_the_first_row_one_succeeds(
    probe: str, ticking: SetClock
) -> None:
    gate, won = threading.Barrier(6), []

    def run(number: int) -> None:
        try:
            row = LeaseRow(TABLE, "sync", executing(probe))
            candidate = Candidate(row, TERMS, f"host:{number}:token", ticking)
            gate.wait(10)
            if candidate.take():
                won.append(number)
        finally:
            connections[probe].close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 1


def test_a_renewal_fails_after_another_process_took_the_lease(
    candidate: Campaigner, ticking: SetClock
) -> None:
    first, second = candidate("1"), candidate("2")
    first.take()
    second.take()
    ticking.pass_(15)
    second.take()
    with pytest.raises(ClaimLost, match="host:2 took the lease"):
        first.renew()


def test_a_renewal_fails_after_the_row_was_deleted(candidate: Campaigner, server: Server) -> None:
    first = candidate("1")
    first.take()
    server.execute(f"DELETE FROM {TABLE}")
    with pytest.raises(ClaimLost, match="row is gone"):
        first.renew()


@pytest.mark.parametrize("took_effect", [True, False])
def test_the_next_renewal_finds_out_an_unknown_outcome(
    candidate: Campaigner, probe: str, ticking: SetClock, took_effect: bool
) -> None:
    plain, lost = executing(probe), [False]

    def unreliable(sql: str, params: Sequence[Any]) -> Any:
        if lost[0] and sql.startswith("UPDATE"):
            if took_effect:
                plain(sql, params)
            raise OperationalError(2013, "Lost connection during query")
        return plain(sql, params)

    first = candidate("1", execute=unreliable)
    first.take()
    lost[0] = True
    with pytest.raises(OperationalError):
        first.renew()
    assert first.left == 10
    lost[0] = False
    ticking.pass_(1)
    first.renew()
    assert first.left == 10
    first.renew()


def test_a_lease_that_was_acquired_unnoticed_is_acquired_again_with_a_new_epoch(
    candidate: Campaigner, probe: str, server: Server
) -> None:
    plain, lost = executing(probe), [True]

    def unreliable(sql: str, params: Sequence[Any]) -> Any:
        answer = plain(sql, params)
        if lost[0] and sql.startswith("INSERT"):
            raise OperationalError(2013, "Lost connection during query")
        return answer

    first = candidate("1", execute=unreliable)
    with pytest.raises(OperationalError):
        first.take()
    assert first.term is None
    assert epoch(server) == 1
    assert first.take()
    assert first.term is not None
    assert first.term.epoch == 2


def test_a_former_leader_cannot_release_the_lease(
    candidate: Campaigner, ticking: SetClock, server: Server
) -> None:
    first, second = candidate("1"), candidate("2")
    first.take()
    second.take()
    ticking.pass_(15)
    second.take()
    first.give_back()
    assert holder(server) == "host:2:token"


def test_a_standby_looks_twice_a_second_and_when_the_lease_expires(
    candidate: Campaigner, ticking: SetClock
) -> None:
    first, second = candidate("1"), candidate("2")
    first.take()
    second.take()
    assert 0.4 <= second.pause() <= 0.5
    ticking.pass_(14.9)
    assert second.pause() == pytest.approx(0.1)
    assert 1.9 <= candidate("3").terms.retry <= 2.1


def test_each_holder_has_a_unique_name() -> None:
    assert str(this_process()) != str(this_process())
    assert len(str(this_process())) <= 200


def test_the_leases_clock_is_not_the_wall_clock() -> None:
    before = Clock().since_boot()
    assert Clock().since_boot() >= before
    assert abs(Clock().since_boot() - time.time()) > 1e6


# Time limits


@pytest.mark.parametrize(
    ("terms", "complaint"),
    [
        (Terms(), ""),
        (Terms.of(1.5), ""),
        (Terms.of(60), ""),
        (Terms(10, 10, 2), "a lease of 10 s is not longer than its renew_deadline of 10 s"),
        (Terms(10, 15, 2), "not longer than its renew_deadline of 15 s"),
        (Terms(15, 2.4, 2), "must be over 2.4 s"),
        (Terms.of(0.5), "too short"),
    ],
)
def test_time_limits_that_do_not_fit_together_are_refused_in_one_sentence(
    terms: Terms, complaint: str
) -> None:
    assert complaint in terms.complaint()
    assert bool(terms.complaint()) == bool(complaint)


def test_missing_time_limits_follow_client_gos_proportions() -> None:
    assert Terms.of(15) == Terms(15, 10, 2)
    assert Terms.of(3) == Terms(3, pytest.approx(2), pytest.approx(0.4))


class Led(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self) -> None: ...


def test_options_override_the_attributes_of_a_leader() -> None:
    settings = Settings(Led(), {"leader": True, "lease": "6s", "renew_every": "1s"})
    assert settings.leader
    assert settings.terms == Terms(6, 4, 1)
    assert not Settings(Led(), {}).leader


@pytest.mark.django_db(transaction=True)
def test_a_daemon_that_has_a_leader_runs_without_one_in_a_test_and_on_sqlite() -> None:
    class Command(Led):
        leader = True

        def tick(self) -> None:
            with self.guarded():
                ticked.append(self.epoch)

    ticked: list[int | None] = []
    with pytest.raises(CommandError, match="cannot have a leader on SQLite"):
        call_command(Command(), max_ticks=1)
    call_command(Command(), max_ticks=1, leader=False)
    call_command(Command(), "--no-leader", "--once")
    assert ticked == [None, None]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lease": "5s", "renew_deadline": "8s"}, "not longer than its renew_deadline"),
        ({"lease": "none"}, "cannot be none"),
        ({"lease": "-1"}, "a duration such as 30s"),
        ({"leader": True, "workers": 4}, "one of 4 workers would lead"),
    ],
)
def test_bad_options_of_a_leader_end_with_one_sentence_and_exit_code_2(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence) as refused:
        Settings(Led(), options)
    assert refused.value.returncode == 2


# Standing by, on a fake clock


class Away:
    """A reason to wait: others lead in these spans of time, in seconds."""

    def __init__(self, pace: Pace, *spans: tuple[float, float]) -> None:
        self.pace, self.spans = pace, spans
        self.was_away = False

    def reason_to_wait(self, now: Moment) -> str:
        is_away = any(begin <= now.monotonic < end for begin, end in self.spans)
        if self.was_away and not is_away:
            self.pace.bring_forward(now, restart=True)
        self.was_away = is_away
        return "not leader" if is_away else ""


def led(schedule: Schedule, ticks: int, *spans: tuple[float, float]) -> list[float]:
    """Return the times of a daemon's ticks, in seconds, while others lead in these spans."""

    class Command(BaseDaemonCommand):
        def lifespan(self) -> AbstractContextManager[None]:
            self.life.pace.reasons.append(Away(self.life.pace, *spans))
            return nullcontext()

        def tick(self) -> None:
            began.append(clock.moment().monotonic)

    began: list[float] = []
    clock = FakeClock()
    call_command(Command(), schedule=schedule, clock=clock, max_ticks=ticks, pulse=10)
    return began


def test_an_interval_is_due_at_once_when_this_process_begins_to_lead() -> None:
    assert led(Every(seconds=100), 3, (0, 30)) == [30, 130, 230]
    assert led(Every(seconds=100), 4, (110, 150)) == [0, 100, 150, 250]


def test_a_cron_time_that_passed_while_another_led_is_not_run() -> None:
    hourly = Cron("0 * * * *")
    assert led(hourly, 2, (0, 5000)) == [7200, 10800]
    assert led(hourly, 3, (3700, 8000)) == [3600, 10800, 14400]


# One process in the election, without its thread


@pytest.fixture
def daemonkits(probe: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe has daemonkit's tables."""
    if probe not in settings.DATABASES:
        monkeypatch.setitem(settings.DATABASES, probe, connections.settings[probe])
    settings.DAEMONKIT = {"database": probe}


@pytest.fixture
def life() -> Life:
    """The life that takes part in the election."""
    led = Led()
    return Life(led, lambda: None, Settings(led, {}))


@pytest.fixture
def leadership(daemonkits: None, ticking: SetClock, life: Life, probe: str) -> Iterator[Leadership]:
    """A process that leads, with the test's clock."""
    session = PrivateSession(probe, TERMS.statement_timeout)
    leadership = Leadership(Led(), TERMS, session, ticking)
    leadership.enter(life)
    assert leadership.reason_not_to_tick == "not leader"
    leadership.step()
    assert leadership.reason_not_to_tick == ""
    yield leadership
    leadership.leave()


def test_after_a_freeze_the_clock_ends_the_leadership_before_the_thread_does(
    leadership: Leadership, ticking: SetClock
) -> None:
    work = leadership.entitled(lambda: "worked")
    assert work() == "worked"
    ticking.pass_(10)
    assert leadership.reason_not_to_tick == "not leader"
    with pytest.raises(StaleEpoch, match="does not lead"):
        work()
    with pytest.raises(StaleEpoch, match="nothing was sent"):
        with leadership.guarded():
            pytest.fail("it must not begin")


def test_after_a_freeze_a_leader_begins_a_new_term(
    leadership: Leadership, ticking: SetClock
) -> None:
    ticking.pass_(11)
    leadership.step()
    assert leadership.reason_not_to_tick == "not leader"
    leadership.step()
    assert (leadership.reason_not_to_tick, leadership.epoch) == ("", 2)


def test_work_keeps_its_epoch_and_the_next_term_waits_for_its_end(
    leadership: Leadership, ticking: SetClock, probe: str, server: Server
) -> None:
    def work() -> None:
        assert leadership.epoch == 1
        ticking.pass_(11)
        for _ in range(3):
            leadership.step()
        assert leadership.reason_not_to_tick == "not leader"
        assert leadership.epoch == 1
        with pytest.raises(OperationalError, match="no longer leads: the lease was not renewed"):
            write(probe, "x")

    leadership.entitled(work)()
    assert leadership.lost_leadership
    leadership.step()
    assert leadership.epoch == 2
    leadership.entitled(lambda: write(probe, "y"))()  # it may connect again
    assert not leadership.lost_leadership
    assert notes(server) == ["y"]


def test_a_process_with_a_tick_of_an_earlier_term_does_not_acquire_the_lease(
    leadership: Leadership, ticking: SetClock, life: Life
) -> None:
    ticking.pass_(11)
    with life.stop.timing(None):  # it cleans up over a half-open link
        for _ in range(3):
            leadership.step()
        assert leadership.reason_not_to_tick == "not leader"
    leadership.step()
    assert leadership.reason_not_to_tick == ""


def test_the_holder_releases_the_lease_when_it_leaves(
    leadership: Leadership, server: Server
) -> None:
    leadership.leave()
    assert holder(server) == ""


def test_a_guarded_write_of_a_tick_is_committed_in_its_epoch(
    leadership: Leadership, probe: str, server: Server
) -> None:
    def work() -> None:
        with leadership.guarded():
            write(probe, "x")
        server.execute(f"UPDATE {TABLE} SET epoch = epoch + 1")
        with leadership.guarded():
            write(probe, "y")

    with pytest.raises(StaleEpoch, match="epoch 1 of test_leader is over, 2 is the newest"):
        leadership.entitled(work)()
    assert notes(server) == ["x"]
    assert leadership.lost_leadership


def test_without_a_leader_a_guarded_write_is_a_transaction(
    daemonkits: None, probe: str, server: Server
) -> None:
    daemon = Led()
    assert daemon.epoch is None
    with pytest.raises(KeyError):
        with daemon.guarded():
            write(probe, "x")
            raise KeyError
    with daemon.guarded():
        write(probe, "y")
    assert notes(server) == ["y"]


# Guarded writes


@pytest.fixture
def guarding(daemonkits: None, server: Server) -> Callable[..., Any]:
    """``guarding(1)``: a guarded block in epoch 1. The lease is in epoch 7."""
    server.execute(
        f"INSERT INTO {TABLE} (name, holder, epoch, renewals, seconds) "
        f"VALUES ('sync', 'host:1:token', 7, 1, 15)"
    )
    return lambda epoch=7, **options: guarded("sync", epoch, **options)


def write(alias: str, note: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO entry (note) VALUES (%s)", [note])


def test_a_guarded_write_of_the_newest_epoch_is_committed(
    guarding: Callable[..., Any], probe: str, server: Server
) -> None:
    with guarding():
        write(probe, "x")
    assert notes(server) == ["x"]


@pytest.mark.parametrize("stale", [6, 8])
def test_a_guarded_write_of_another_epoch_is_rolled_back(
    guarding: Callable[..., Any], probe: str, server: Server, stale: int
) -> None:
    with pytest.raises(StaleEpoch, match=f"epoch {stale} of sync is over, 7 is the newest"):
        with guarding(stale):
            write(probe, "x")
    assert notes(server) == []


def test_a_term_that_ends_in_the_middle_of_a_guarded_write_undoes_it(
    guarding: Callable[..., Any], probe: str, server: Server
) -> None:
    with pytest.raises(StaleEpoch):
        with guarding():
            write(probe, "x")
            server.execute(f"UPDATE {TABLE} SET epoch = 8, renewals = 2")
    assert notes(server) == []


def test_the_lease_cannot_be_acquired_between_the_check_and_the_commit(
    guarding: Callable[..., Any], probe: str, server: Server
) -> None:
    began, taken = threading.Event(), threading.Event()

    def take() -> None:
        began.wait(10)
        server.execute(f"UPDATE {TABLE} SET epoch = 8, renewals = 2")
        taken.set()

    taker = threading.Thread(target=take)
    taker.start()

    def look_around(execute: Any, sql: str, *arguments: Any) -> Any:
        answer = execute(sql, *arguments)
        if "FOR UPDATE" in sql:
            began.set()
            assert not taken.wait(0.5)
        return answer

    with connections[probe].execute_wrapper(look_around):
        with guarding(seconds_left=lambda: 10.0):
            write(probe, "x")
    taker.join(10)
    assert taken.is_set()
    assert notes(server) == ["x"]


def test_the_server_closes_a_session_that_freezes_between_the_check_and_the_commit(
    guarding: Callable[..., Any], probe: str, server: Server
) -> None:
    """Otherwise a leader that freezes there would prevent all others from leading."""

    def stand_still(execute: Any, sql: str, *arguments: Any) -> Any:
        answer = execute(sql, *arguments)
        if "FOR UPDATE" in sql:
            eventually(lambda: not server.sessions(), within=10)
        return answer

    with pytest.raises(Exception, match=r"gone away|idle-in-transaction|closed|Lost"):
        with connections[probe].execute_wrapper(stand_still):
            with guarding():
                write(probe, "x")
    connections[probe].close()
    assert notes(server) == []


def test_the_servers_idle_timeout_is_restored_after_a_guarded_write(
    guarding: Callable[..., Any], probe: str, server: Server
) -> None:
    asked = (
        "SHOW idle_in_transaction_session_timeout"
        if isinstance(server, PostgreSQL)
        else "SELECT @@session.wait_timeout"
    )

    def patience() -> Any:
        with connections[probe].cursor() as cursor:
            cursor.execute(asked)
            return cursor.fetchone()

    before = patience()
    with guarding():
        write(probe, "x")
    assert patience() == before
    with pytest.raises(StaleEpoch):
        with guarding(6):
            write(probe, "x")
    assert patience() == before


def test_a_guarded_write_inside_a_transaction_is_refused(
    guarding: Callable[..., Any], probe: str
) -> None:
    with pytest.raises(RuntimeError, match="durable"):
        with transaction.atomic(using=probe):
            with guarding():
                pass


def test_an_error_in_a_guarded_write_rolls_it_back_and_propagates(
    guarding: Callable[..., Any], probe: str, server: Server
) -> None:
    with pytest.raises(KeyError):
        with guarding():
            write(probe, "x")
            raise KeyError
    assert notes(server) == []


def test_rows_of_the_lease_read_as_they_were_written(candidate: Campaigner, server: Server) -> None:
    candidate("1").take()
    rows = server.execute(f"SELECT holder, epoch, renewals, seconds FROM {TABLE}")
    assert Row(*rows[0]) == Row("host:1:token", 1, 1, 15.0)


# On a test's clock


class Hourly(BaseDaemonCommand):
    schedule = Every(hours=1)
    leader = True
    terms: list[tuple[int | None, set[str]]]

    def tick(self) -> None:
        self.terms.append((self.epoch, {thread.name for thread in threading.enumerate()}))


def test_on_a_fake_clock_a_leader_keeps_its_lease_for_hours_without_a_thread(
    daemonkits: None, server: Server
) -> None:
    daemon = Hourly()
    daemon.terms = []
    call_command(daemon, max_ticks=3, clock=FakeClock(), skip_checks=True)
    assert [epoch for epoch, _ in daemon.terms] == [1, 1, 1]
    assert not any("daemonkit-leader" in names for _, names in daemon.terms)
    assert holder(server) == ""


def test_on_a_fake_clock_the_lease_of_a_dead_leader_expires_at_once(
    daemonkits: None, probe: str
) -> None:
    row = LeaseRow(TABLE, Hourly().name, executing(probe))
    assert Candidate(row, TERMS, "host:1:dead", SetClock()).take()
    daemon, clock = Hourly(), FakeClock()
    daemon.terms = []
    call_command(daemon, max_ticks=1, clock=clock, skip_checks=True)
    assert [epoch for epoch, _ in daemon.terms] == [2]
    assert TERMS.duration <= clock.moment().monotonic <= TERMS.duration + 2 * daemon.pulse
