"""The ledger while its database does not answer: jobs go on, nothing hangs, and lost rows are
logged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command

from daemonkit import BaseDaemonCommand, Every, job
from daemonkit.connections.holding import close_all
from daemonkit.connections.private_session import PrivateSessions
from daemonkit.connections.session_thread import NoAnswer
from daemonkit.jobs import ledger as ledgers
from daemonkit.jobs.ledger import DatabaseLedger
from daemonkit.jobs.rows import Entry
from daemonkit.signals import iteration_finished, run_skipped
from lab.proxy import Proxy
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.servers import MakeProxy
from tests.kit.tables import ledger_tables

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def link(
    server: Server, alias: MakeAlias, proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Proxy]:
    """The link to the database that has the ledger. The requests' deadlines are short."""
    direct, through = alias(server, "direct"), proxy(server)
    name = alias(server, "probe", port=through.port)
    monkeypatch.setattr(settings, "DAEMONKIT", {"database": name}, raising=False)
    monkeypatch.setattr(ledgers, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(ledgers, "CLAIM_SECONDS", 0.5)
    monkeypatch.setattr(ledgers, "FLUSH_SECONDS", 1.0)
    with ledger_tables(direct):
        yield through
        through.resume()
        close_all()
        server.kill_sessions()  # the sessions whose end the server has not noticed
    close_all()


@pytest.fixture
def ledger(link: Proxy) -> Iterator[DatabaseLedger]:
    ledger = DatabaseLedger("test", PrivateSessions("test"))
    yield ledger
    ledger.close()


def entry(number: int, status: str = "ran") -> Entry:
    return Entry("turn", NOON + timedelta(seconds=number), status, started=NOON.timestamp())


def rows(server: Server) -> list[tuple[Any, ...]]:
    return server.execute("SELECT status, reason FROM daemonkit_run ORDER BY due")


def sentences(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


FAULTS = ["stall", "drop", "lose_answers", "cut"]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_row_is_written_when_the_database_answers_again(
    ledger: DatabaseLedger, link: Proxy, server: Server, fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "daemonkit")
    ledger.note(entry(0))
    eventually(lambda: len(rows(server)) == 1)
    getattr(link, fault)()
    if fault == "cut":
        link.refuse()
    for number in range(1, 50):
        ledger.note(entry(number))
    eventually(lambda: "the ledger of test cannot be written" in caplog.text)
    link.resume()
    eventually(lambda: "the ledger of test can be written again" in caplog.text, within=20)
    assert rows(server) == [("ran", "")] * 50
    assert len(sentences(caplog)) == 1
    ledger.flush()


def test_the_loss_of_the_oldest_rows_is_logged(
    ledger: DatabaseLedger, link: Proxy, server: Server, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ledger._queue, "_max_entries", 10)
    monkeypatch.setattr(ledgers, "COMPLAINT_INTERVAL", 0.0)
    link.drop()
    for number in range(25):
        ledger.note(entry(number))
    eventually(lambda: "; 15 older entries are lost" in caplog.text)
    link.resume()
    eventually(lambda: len(rows(server)) == 10, within=20)
    ledger.flush()


def test_rows_that_cannot_be_written_at_the_end_are_counted_within_a_time_limit(
    ledger: DatabaseLedger, link: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.open(needed=True)
    link.drop()
    for number in range(7):
        ledger.note(entry(number))
    began = time.monotonic()
    ledger.flush()
    assert time.monotonic() - began < 5
    assert sentences(caplog)[-1] == "the ledger of test lacks its last 7 rows"


def test_the_claim_of_an_exclusive_run_has_a_time_limit(
    ledger: DatabaseLedger, link: Proxy
) -> None:
    assert ledger.claim(entry(0, "running"))
    link.drop()
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        ledger.claim(entry(1, "running"))
    assert time.monotonic() - began < 5


def test_a_claim_that_took_effect_without_an_answer_is_ours_when_tried_again(
    ledger: DatabaseLedger, link: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try takes effect without an answer, and its session ends."""
    ledger.claim_seconds = 20.0
    assert ledger.claim(entry(0, "running"))
    link.lose_answers()
    claimed: list[bool] = []
    thread = threading.Thread(target=lambda: claimed.append(ledger.claim(entry(1, "running"))))
    thread.start()
    eventually(lambda: len(rows(server)) == 2)
    link.cut()
    link.resume()
    thread.join(20)
    assert claimed == [True]
    assert rows(server) == [("running", "")] * 2


def test_a_claim_that_took_effect_without_an_answer_ends_as_skipped(
    ledger: DatabaseLedger, link: Proxy, server: Server
) -> None:
    ledger.open(needed=True)
    ledger.claim(entry(0, "running"))
    link.lose_answers()
    with pytest.raises(NoAnswer):
        ledger.claim(entry(1, "running"))
    eventually(lambda: len(rows(server)) == 2)
    link.resume()
    ledger.note(entry(1, "skipped")._replace(reason="ledger"))
    ledger.flush()
    assert rows(server) == [("running", ""), ("skipped", "ledger")]


def test_a_claim_survives_a_kill_of_its_idle_session(
    ledger: DatabaseLedger, server: Server
) -> None:
    assert ledger.claim(entry(0, "running"))
    server.kill_sessions()
    assert ledger.claim(entry(1, "running"))


def test_jobs_go_on_while_packets_are_dropped_and_skips_are_recorded(
    link: Proxy, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop in the middle of the outage ends the daemon at once."""
    skipped: set[str] = set()
    plain: list[int] = []

    class Command(BaseDaemonCommand):
        @job(Every(seconds=0.1), exclusive=True)
        def alone(self) -> None: ...

        @job(Every(seconds=0.1))
        def plain(self) -> None: ...

    def count(iteration: Any, **_: Any) -> None:
        if iteration.job == "plain":
            plain.append(1)
        elif plain:
            link.drop()

    def note(daemon: BaseDaemonCommand, job: str, reason: str, **_: Any) -> None:
        skipped.add(f"{job} {reason}")
        if "alone ledger" in skipped and len(plain) > 5:
            daemon.life.stop.ask("enough")  # type: ignore[attr-defined]

    iteration_finished.connect(count, sender=Command)
    run_skipped.connect(note, sender=Command)
    began = time.monotonic()
    call_command(Command(), max_seconds=60, verbosity=0)
    assert time.monotonic() - began < 30
    assert "alone ledger" in skipped
    assert sum("cannot be written" in each for each in sentences(caplog)) == 1
    assert any("lacks its last" in each for each in sentences(caplog))


def test_a_slow_write_of_the_ledger_delays_no_claim(
    ledger: DatabaseLedger, link: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on the ledger's table delays its rows, but not the session of lease and claims."""
    monkeypatch.setattr(ledgers, "REQUEST_SECONDS", 30.0)
    sessions = PrivateSessions("test")
    gate = threading.Event()
    writing = threading.Thread(target=sessions.ledger.run, args=(gate.wait, 30))
    writing.start()
    eventually(lambda: sessions.ledger.is_in_use)
    assert sessions.claims.execute("SELECT 1", [], 5, urgent=True)[1] == [(1,)]
    assert sessions.ledger.is_in_use
    gate.set()
    writing.join()
    sessions.close()
