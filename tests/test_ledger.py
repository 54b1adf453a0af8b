"""The ledger: its rows, on real servers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections, transaction

from daemonkit import BaseDaemonCommand, Cron, Every, job
from daemonkit.connections import write_behind
from daemonkit.connections.holding import close_all
from daemonkit.connections.private_session import PrivateSessions
from daemonkit.jobs.ledger import DatabaseLedger
from daemonkit.jobs.reading import Choice, read
from daemonkit.jobs.rows import Entry, for_database
from daemonkit.models import Run
from daemonkit.testing import FakeClock
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.simulated import SetClock, wall

NOON = wall("2026-03-02 12:00")


@pytest.fixture
def ledger(database: str) -> Iterator[Callable[[], DatabaseLedger]]:
    """``ledger()`` makes a further ledger of this daemon, as another process has it."""
    made: list[DatabaseLedger] = []

    def make() -> DatabaseLedger:
        made.append(DatabaseLedger("test_ledger", PrivateSessions("test_ledger")))
        return made[-1]

    yield make
    for each in made:
        each.close()


NewLedger = Callable[[], DatabaseLedger]


def live(command: type[BaseDaemonCommand], clock: FakeClock, **options: Any) -> None:
    call_command(command(), clock=clock, **{"pulse": 60, "raise_errors": False, **options})


def rows(job: str | None = None) -> list[dict[str, Any]]:
    """The ledger, the oldest first."""
    found = reversed(read(Choice()))
    return [row for row in found if job in (None, row["job"])]


def row_texts(job: str | None = None) -> list[str]:
    """Each row as a text such as "12:00:00 ran"."""
    return [
        f"{row['due']:%H:%M:%S} {row['status']}" + (f" {row['reason']}" if row["reason"] else "")
        for row in rows(job)
    ]


class Plain(BaseDaemonCommand):
    @job(Every(seconds=10))
    def turn(self) -> None: ...


def test_every_due_time_has_a_row_with_its_outcome(database: str) -> None:
    clock = FakeClock(NOON)

    class Command(BaseDaemonCommand):
        @job(Every(seconds=10))
        def turn(self) -> None:
            if clock.moment().monotonic == 20:
                clock.advance(15)
            if clock.moment().monotonic == 40:
                raise ValueError("no")

    live(Command, clock, max_seconds=65)
    assert row_texts() == [
        "12:00:00 ran",
        "12:00:10 ran",
        "12:00:20 ran",
        "12:00:30 skipped overlap",
        "12:00:40 failed",
        "12:00:50 ran",
        "12:01:00 ran",
    ]
    slow, failed = rows()[2], rows()[4]
    assert (slow["daemon"], slow["job"], slow["seconds"]) == ("test_ledger", "turn", 15)
    assert slow["started"] == slow["due"]
    assert failed["error"] == "ValueError: no"


@pytest.mark.parametrize(
    ("choice", "stored"),
    [("text", "ValueError: anna@example.org"), ("class", "ValueError"), ("none", "")],
)
def test_a_row_holds_the_text_of_an_error_that_the_setting_allows(
    database: str, monkeypatch: pytest.MonkeyPatch, choice: str, stored: str
) -> None:
    class Command(BaseDaemonCommand):
        @job(Every(seconds=10))
        def turn(self) -> None:
            raise ValueError("anna@example.org")

    monkeypatch.setattr(settings, "DAEMONKIT", {"database": database, "store_errors": choice})
    live(Command, FakeClock(NOON), max_ticks=1)
    assert [(row["status"], row["error"]) for row in rows()] == [("failed", stored)]


def test_lateness_is_in_the_row(database: str) -> None:
    class Late(FakeClock):
        def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
            super().wait(seconds + 3, told_to_stop)

    live(Plain, Late(NOON), max_ticks=2)
    assert [row["late"] for row in rows()] == [0, 3]


def test_a_plain_loop_writes_no_row(database: str) -> None:
    class Command(BaseDaemonCommand):
        schedule = Every(seconds=1)

        def tick(self) -> None: ...

    live(Command, FakeClock(NOON), max_ticks=3)
    assert rows() == []


def test_a_daemon_whose_ledger_is_off_writes_no_row(database: str) -> None:
    class Command(Plain):
        ledger = False

    live(Command, FakeClock(NOON), max_ticks=3)
    assert rows() == []


def test_the_newest_rows_of_each_job_are_kept(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "DAEMONKIT", {"database": database, "keep_runs": 5})

    class Command(BaseDaemonCommand):
        @job(Every(seconds=10))
        def often(self) -> None: ...

        @job(Every(seconds=60))
        def rarely(self) -> None: ...

    live(Command, FakeClock(NOON), max_seconds=200)
    assert Run.objects.using(database).count() == 9
    assert row_texts("rarely") == [f"12:0{minute}:00 ran" for minute in range(4)]
    assert row_texts("often")[-1] == "12:03:10 ran"
    assert len(row_texts("often")) == 5


def test_a_row_is_never_part_of_the_jobs_transaction(database: str) -> None:
    class Command(BaseDaemonCommand):
        @job(Every(seconds=10), exclusive=True)
        def turn(self) -> None:
            with transaction.atomic(database):
                raise ValueError("rolled back")

    live(Command, FakeClock(NOON), max_ticks=1)
    assert row_texts() == ["12:00:10 failed"]


def test_an_async_job_leaves_no_session_behind(database: str, server: Server) -> None:
    class Command(BaseDaemonCommand):
        @job(Every(seconds=10))
        async def turn(self) -> int:
            return await Run.objects.using(database).acount()

    live(Command, FakeClock(NOON), max_ticks=3)
    close_all()
    eventually(lambda: not server.sessions())


# Down, and catching up


class Hourly(BaseDaemonCommand):
    @job(Cron("0 * * * *"))
    def turn(self) -> None: ...


class CatchingUp(BaseDaemonCommand):
    due_at: ClassVar[list[str]] = []

    @job(Cron("0 * * * *"), catch_up=True)
    def turn(self) -> None:
        self.due_at.append(f"{self.due:%H:%M}")


def test_due_times_that_passed_while_the_process_was_down_are_recorded(database: str) -> None:
    live(Hourly, FakeClock(NOON - 60), max_ticks=1)
    live(Hourly, FakeClock(NOON + 3.5 * 3600), max_ticks=1)
    assert row_texts() == [
        "12:00:00 ran",
        "13:00:00 skipped down",
        "14:00:00 skipped down",
        "15:00:00 skipped down",
        "16:00:00 ran",
    ]


def test_catch_up_runs_the_last_missed_due_time_once(database: str) -> None:
    CatchingUp.due_at.clear()
    live(CatchingUp, FakeClock(NOON - 60), max_ticks=1)
    live(CatchingUp, FakeClock(NOON + 3.5 * 3600), max_ticks=2)
    assert CatchingUp.due_at == ["12:00", "15:00", "16:00"]
    assert row_texts() == [
        "12:00:00 ran",
        "13:00:00 skipped down",
        "14:00:00 skipped down",
        "15:00:00 ran",
        "16:00:00 ran",
    ]
    assert rows()[3]["late"] == 1800
    live(CatchingUp, FakeClock(NOON + 4.1 * 3600), max_ticks=1)
    assert row_texts()[-1] == "17:00:00 ran"


def test_a_daemon_that_never_ran_has_nothing_to_catch_up_on(database: str) -> None:
    live(CatchingUp, FakeClock(NOON + 1800), max_ticks=1)
    assert row_texts() == ["13:00:00 ran"]


def test_a_due_time_past_its_grace_is_not_caught_up_on(database: str) -> None:
    class Command(BaseDaemonCommand):
        @job(Cron("0 * * * *"), catch_up=True, grace=600)
        def turn(self) -> None: ...

    live(Command, FakeClock(NOON - 60), max_ticks=1)
    live(Command, FakeClock(NOON + 3600 + 1800), max_ticks=1)
    assert row_texts() == ["12:00:00 ran", "13:00:00 skipped down", "14:00:00 ran"]


def test_a_year_of_downtime_pushes_no_run_out_of_the_ledger(database: str) -> None:
    class Command(BaseDaemonCommand):
        @job(Cron("* * * * *"))
        def turn(self) -> None: ...

    live(Command, FakeClock(NOON), max_ticks=1)
    live(Command, FakeClock(NOON + 366 * 86400), max_ticks=1)
    assert len(row_texts()) == 12
    assert row_texts()[0] == "12:01:00 ran"
    assert row_texts()[-2:] == ["12:00:00 skipped down", "12:01:00 ran"]


# The wall clock


def test_a_repeated_hour_has_a_row_for_each_run(database: str) -> None:
    class Command(BaseDaemonCommand):
        @job(Every(seconds=600), exclusive=True)
        def turn(self) -> None: ...

    live(Command, SetClock(NOON, after=3601, by=-3600), max_seconds=7300)
    found = rows()
    assert len(found) == 12
    assert {row["status"] for row in found} == {"ran"}


# Exclusive


class Alone(BaseDaemonCommand):
    runs: list[str] = []

    @job(Every(seconds=10), exclusive=True)
    def turn(self) -> None:
        self.runs.append(f"{self.life.clock.moment().utc:%H:%M:%S}")


def test_a_due_time_that_another_process_has_claimed_is_not_run(
    database: str, ledger: NewLedger
) -> None:
    Alone.runs.clear()
    due = datetime.fromtimestamp(NOON + 20, UTC)
    assert ledger().claim(Entry("turn", due, "running"))
    live(Alone, FakeClock(NOON + 1), max_seconds=35)
    assert Alone.runs == ["12:00:10", "12:00:30"]
    live(Alone, FakeClock(NOON + 1), max_seconds=25)
    assert Alone.runs == ["12:00:10", "12:00:30"]


def test_exclusive_intervals_have_the_same_due_times_in_every_process(
    database: str,
) -> None:
    Alone.runs.clear()
    for begun in (NOON + 1.7, NOON + 4.2):
        live(Alone, FakeClock(begun), max_seconds=19)
    assert Alone.runs == ["12:00:10", "12:00:20"]


def test_an_exclusive_run_is_never_run_twice_because_its_connection_was_lost(
    database: str,
) -> None:
    starts = []

    class Command(BaseDaemonCommand):
        @job(Every(seconds=100), exclusive=True)
        def turn(self) -> None:
            starts.append(round(self.life.clock.moment().monotonic))
            if len(starts) == 1:
                self.life.clock.advance(1)  # type: ignore[attr-defined]
                raise OperationalError(2013, "Lost connection")

    live(Command, FakeClock(950), max_seconds=300)
    assert starts == [50, 150, 250]


def test_skipped_due_times_are_written_before_a_later_one_is_claimed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed just after its claim never writes the rows that it still had
    queued."""
    live(Alone, FakeClock(NOON + 1), max_seconds=10)
    flush, killed = DatabaseLedger.flush, list[DatabaseLedger]()
    monkeypatch.setattr(write_behind, "GATHER_SECONDS", 60)
    monkeypatch.setattr(DatabaseLedger, "flush", lambda ledger: killed.append(ledger))
    live(Alone, FakeClock(NOON + 41), max_seconds=10)
    found = row_texts()
    for each in killed:
        flush(each)
        each.close()
    assert found == [
        "12:00:10 ran",
        "12:00:20 skipped down",
        "12:00:30 skipped down",
        "12:00:40 skipped down",
        "12:00:50 running",
    ]


def test_a_due_time_that_passes_while_the_daemon_opens_is_not_skipped_as_down(
    database: str,
) -> None:
    class Command(Alone):
        def check_everything(self) -> None:
            self.life.clock.advance(24)  # type: ignore[attr-defined]

    live(Alone, FakeClock(NOON + 1), max_seconds=10)
    live(Command, FakeClock(NOON + 21), max_seconds=31)
    assert row_texts() == [
        "12:00:10 ran",
        "12:00:20 skipped down",
        "12:00:30 skipped grace",
        "12:00:40 ran",
        "12:00:50 ran",
    ]


def test_a_claim_is_in_the_ledger_while_its_run_is_in_progress(database: str) -> None:
    seen = []

    class Command(BaseDaemonCommand):
        @job(Every(seconds=10), exclusive=True)
        def turn(self) -> None:
            seen.extend(row_texts())

    live(Command, FakeClock(NOON), max_ticks=1)
    assert seen == ["12:00:10 running"]
    assert row_texts() == ["12:00:10 ran"]


def test_a_running_row_of_a_process_that_is_gone_shows_killed(
    database: str, ledger: NewLedger
) -> None:
    gone = ledger()
    gone.rows.pid = 2**22 + 1  # above all pids on Linux
    gone.claim(Entry("turn", datetime.fromtimestamp(NOON, UTC), "running"))
    assert row_texts() == ["12:00:00 killed"]
    gone.rows.host = "elsewhere"
    gone.claim(Entry("turn", datetime.fromtimestamp(NOON + 1, UTC), "running"))
    assert row_texts() == ["12:00:00 killed", "12:00:01 running"]


def test_a_due_time_that_one_process_could_not_run_is_run_by_another(
    database: str, ledger: NewLedger
) -> None:
    due = datetime.fromtimestamp(NOON + 20, UTC)
    busy = ledger()
    busy.note(Entry("turn", due, "skipped", "overlap"))
    busy.flush()
    assert row_texts() == ["12:00:20 skipped overlap"]
    claims = [ledger().claim(Entry("turn", due, "running")) for _ in range(3)]
    assert claims == [True, False, False]
    assert row_texts() == ["12:00:20 running"]


def test_the_reason_why_an_exclusive_job_did_not_run_is_written_at_the_end(database: str) -> None:
    clock = FakeClock(NOON + 5)

    class Command(BaseDaemonCommand):
        @job(Every(seconds=10), exclusive=True)
        def turn(self) -> None:
            clock.advance(15)

    live(Command, clock, max_seconds=22)
    live(Alone, FakeClock(NOON + 31), max_ticks=1)
    assert row_texts() == ["12:00:10 ran", "12:00:20 skipped overlap", "12:00:30 skipped down",
                      "12:00:40 ran"]  # fmt: skip


# A ledger that cannot be written


def without_table(database: str) -> None:
    with connections[database].cursor() as cursor:
        cursor.execute("DROP TABLE daemonkit_run")


def restore_table(database: str) -> None:
    with connections[database].schema_editor() as editor:
        editor.create_model(Run)


def test_a_missing_table_stops_no_job_and_is_logged_in_one_sentence(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    without_table(database)
    ran = []

    class Command(BaseDaemonCommand):
        @job(Every(seconds=10))
        def turn(self) -> None:
            ran.append(1)

    live(Command, FakeClock(NOON), max_ticks=20)
    restore_table(database)
    assert len(ran) == 20
    (said,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "cannot be written" in said
    assert said.endswith("It has no table: run `manage.py migrate daemonkit --database probe`")
    assert "\n" not in said


def test_a_ledger_that_recovers_is_logged_once_and_has_all_rows(
    database: str, ledger: NewLedger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "daemonkit")
    without_table(database)
    mine = ledger()
    dues = [datetime.fromtimestamp(NOON + number, UTC) for number in range(3)]
    mine.note(Entry("turn", dues[0], "ran"))
    eventually(lambda: "cannot be written" in caplog.text)
    restore_table(database)
    eventually(lambda: "can be written again" in caplog.text)
    for due in dues[1:]:
        mine.note(Entry("turn", due, "ran"))
    mine.flush()
    assert len(row_texts()) == 3
    assert caplog.text.count("can be written again") == 1
    assert "dropped" not in caplog.text


@pytest.mark.parametrize("details", [{"exclusive": True}, {"catch_up": True}])
def test_a_job_that_needs_the_ledger_ends_with_78_without_its_table(
    database: str, details: dict[str, bool]
) -> None:
    without_table(database)

    class Command(BaseDaemonCommand):
        @job(Cron("* * * * *"), **details)
        def turn(self) -> None: ...

    with pytest.raises(CommandError, match=r"run `manage.py migrate daemonkit") as caught:
        live(Command, FakeClock(NOON), max_ticks=1)
    restore_table(database)
    assert caught.value.returncode == 78
    assert "\n" not in str(caught.value)


def test_an_exclusive_run_that_cannot_be_claimed_is_skipped_and_recorded(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran = []

    class Command(BaseDaemonCommand):
        @job(Every(seconds=10), exclusive=True)
        def turn(self) -> None:
            ran.append(1)
            if ran.count(1) == 1:
                without_table(database)

        @job(Every(seconds=10))
        def other(self) -> None:
            ran.append(2)

    live(Command, FakeClock(NOON), max_seconds=45)
    restore_table(database)
    assert ran.count(1) == 1
    assert ran.count(2) == 5
    errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert [text for text in errors if "turn due" in text] == [
        "test_ledger turn due 2026-03-02 12:00:20+00:00 did not run: ledger"
    ]
    assert sum("cannot be written" in text for text in errors) == 1


def test_once_fails_and_names_the_job_that_did_not_run(database: str) -> None:
    ran = []

    class Command(BaseDaemonCommand):
        @contextlib.contextmanager
        def lifespan(self) -> Iterator[None]:
            without_table(database)
            yield

        @job(Every(seconds=10), exclusive=True)
        def strict(self) -> None: ...

        @job(Every(seconds=10))
        def plain(self) -> None:
            ran.append(1)

    with pytest.raises(CommandError, match="test_ledger did not run strict: ledger") as caught:
        live(Command, FakeClock(NOON), once=True)
    restore_table(database)
    assert caught.value.returncode == 1
    assert ran == [1]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"keep_runs": 0}, "keep_runs"),
        ({"store_errors": "all"}, "must be one of 'text', 'class', 'none', not 'all'"),
    ],
)
def test_an_invalid_setting_ends_with_one_sentence_and_78(
    database: str, monkeypatch: pytest.MonkeyPatch, setting: dict[str, object], sentence: str
) -> None:
    monkeypatch.setattr(settings, "DAEMONKIT", {"database": database, **setting})
    with pytest.raises(CommandError, match=sentence) as caught:
        live(Plain, FakeClock(NOON), max_ticks=1)
    assert caught.value.returncode == 78


def test_a_project_without_time_zones_has_a_ledger_in_utc(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "USE_TZ", False)
    live(Alone, FakeClock(NOON), max_ticks=1)
    assert row_texts() == ["12:00:10 ran"]


# Choosing rows


@pytest.fixture
def three_runs(database: str) -> None:
    """Rows at 10:00 (ran), 11:00 (failed) and 12:00 (ran), the last one of another job."""
    for hour, name, status in ((10, "early", "ran"), (11, "early", "failed"), (12, "late", "ran")):
        due = for_database(datetime(2026, 3, 1, hour, tzinfo=UTC))
        Run.objects.using(database).create(daemon="chosen", job=name, due=due, status=status)


@pytest.mark.parametrize(
    ("choice", "hours"),
    [
        (Choice(), [12, 11, 10]),
        (Choice("chosen", job="early"), [11, 10]),
        (Choice("another"), []),
        (Choice(since=datetime(2026, 3, 1, 11, tzinfo=UTC)), [12, 11]),
        (Choice(limit=2), [12, 11]),
        (Choice(only_failed=True), [11]),
        (Choice(only_failed=True, job="late"), []),
    ],
)
def test_rows_are_chosen(three_runs: None, choice: Choice, hours: list[int]) -> None:
    assert [row["due"].astimezone(UTC).hour for row in read(choice)] == hours
