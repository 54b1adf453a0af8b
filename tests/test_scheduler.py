"""Jobs: whole daemons on a fake clock, their jobs on real threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from django.core.management import CommandError, call_command
from django.db import OperationalError

from daemonkit import BaseDaemonCommand, Cron, Every, Iteration, Poll, Schedule, job
from daemonkit.clock import Moment
from daemonkit.jobs.schedule import jobs_of
from daemonkit.schedules.every import Aligned
from daemonkit.signals import daemon_beat, iteration_finished, run_skipped
from daemonkit.testing import FakeClock
from tests.kit.simulated import SetClock, starts, times, wall


class Story:
    """What a daemon with jobs did: its runs, and the due times that it skipped."""

    def __init__(self) -> None:
        self.runs: list[Iteration] = []
        self.skips: list[tuple[str, float, str]] = []

    def note_run(self, iteration: Iteration, **_: Any) -> None:
        self.runs.append(iteration)

    def note_skip(self, job: str, due: Moment, reason: str, **_: Any) -> None:
        self.skips.append((job, round(due.monotonic, 3), reason))

    def of(self, name: str) -> list[Iteration]:
        return [iteration for iteration in self.runs if iteration.job == name]

    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.skips]


def daemon(**members: Any) -> type[BaseDaemonCommand]:
    """A daemon's class with these members, and without a ledger."""
    return type("Command", (BaseDaemonCommand,), {"ledger": False, **members})


def live(command: type[BaseDaemonCommand], clock: FakeClock | None = None, **options: Any) -> Story:
    story = Story()
    iteration_finished.connect(story.note_run, sender=command)
    run_skipped.connect(story.note_skip, sender=command)
    settings = {"pulse": 10, "raise_errors": False, **options}
    call_command(command(), clock=clock or FakeClock(), **settings)
    return story


def method(schedule: Any, work: Callable[[], Any] = lambda: None, **details: Any) -> Any:
    """A job that does this work."""

    def turn(self: BaseDaemonCommand) -> Any:
        return work()

    turn.__name__ = "turn"
    return job(schedule, **details)(turn)


# Several jobs


def test_each_job_runs_by_its_own_schedule_and_on_a_thread_of_the_pool() -> None:
    threads = set()

    class Command(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=10))
        def often(self) -> None:
            threads.add(threading.current_thread().name)

        @job(Every(seconds=25))
        def rarely(self) -> str:
            return "done"

        @job(Cron("*/1 * * * *"))
        def each_minute(self) -> None: ...

    story = live(Command, FakeClock(30), max_seconds=70)
    assert starts(story.of("often")) == [0, 10, 20, 30, 40, 50, 60]
    assert starts(story.of("rarely")) == [0, 25, 50]
    assert starts(story.of("each_minute")) == [30]
    assert [run.number for run in story.of("rarely")] == [1, 2, 3]
    assert {run.result for run in story.of("rarely")} == {"done"}
    assert not story.skips
    assert all(name.startswith("test_scheduler-") for name in threads)
    assert not [each for each in threading.enumerate() if each.name.startswith("test_scheduler-")]


def test_an_interval_does_not_drift_when_its_runs_take_time() -> None:
    clock = FakeClock()
    story = live(daemon(turn=method(Every(seconds=10), lambda: clock.advance(3))), clock,
                 max_ticks=5)  # fmt: skip
    assert starts(story.runs) == [0, 10, 20, 30, 40]


def test_runs_of_one_job_never_overlap_and_the_later_one_is_skipped() -> None:
    clock = FakeClock()
    story = live(daemon(turn=method(Every(seconds=10), lambda: clock.advance(25))), clock,
                 max_ticks=3)  # fmt: skip
    assert starts(story.runs) == [0, 30, 60]
    assert story.skips == [("turn", due, "overlap") for due in (10, 20, 40, 50)]


def test_a_run_that_would_overlap_in_real_time_is_skipped() -> None:
    together = []
    now_running: list[int] = []

    def run() -> None:
        now_running.append(1)
        together.append(len(now_running))
        time.sleep(0.12)
        now_running.pop()

    command = daemon(turn=method(Every(seconds=0.05), run))
    story = Story()
    run_skipped.connect(story.note_skip, sender=command)
    call_command(command(), max_ticks=3)
    assert together == [1, 1, 1]
    assert set(story.reasons()) == {"overlap"}
    assert len(story.skips) >= 4


def test_different_jobs_may_overlap() -> None:
    meeting = threading.Barrier(2, timeout=20)

    class Command(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=60))
        def one(self) -> int:
            return meeting.wait()

        @job(Every(seconds=60))
        def other(self) -> int:
            return meeting.wait()

    call_command(Command(), max_ticks=2)


def test_a_run_that_waits_for_a_thread_is_replaced_by_its_next_due_time() -> None:
    """The only thread is busy: of the due times that pass meanwhile, the newest is run."""
    release = threading.Event()

    class Command(BaseDaemonCommand):
        ledger, threads = False, 1

        @job(Every(seconds=3600))
        def busy(self) -> None:
            release.wait(20)

        @job(Every(seconds=0.05))
        def turn(self) -> None: ...

    story = Story()

    def note_skip(**details: Any) -> None:
        story.note_skip(**details)
        if len(story.skips) == 3:
            release.set()

    iteration_finished.connect(story.note_run, sender=Command)
    run_skipped.connect(note_skip, sender=Command)
    call_command(Command(), max_ticks=3)
    assert set(story.reasons()) == {"grace"}
    assert [run.job for run in story.runs] == ["busy", "turn", "turn"]
    assert story.runs[1].due.monotonic > story.runs[0].due.monotonic + 0.1


def test_a_poller_among_the_jobs_is_due_again_when_its_run_has_ended() -> None:
    clock, left = FakeClock(), [True, True, False]

    def run() -> bool:
        clock.advance(1)
        return left.pop(0) if left else False

    story = live(daemon(turn=method(Poll(idle=5), run)), clock, max_ticks=5)
    assert starts(story.runs) == [0, 1, 2, 8, 14]
    assert not story.skips


def test_an_async_job_runs_on_an_event_loop_of_its_thread() -> None:
    class Command(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=1))
        async def turn(self) -> int:
            await asyncio.sleep(0)
            return threading.get_ident()

    story = live(Command, max_ticks=1)
    assert story.runs[0].result != threading.get_ident()


# APScheduler's triggers


def test_any_apscheduler_trigger_is_a_schedule() -> None:
    class Command(BaseDaemonCommand):
        ledger = False

        @job(IntervalTrigger(minutes=10, start_date="2026-01-01 00:00:00", timezone="UTC"))
        def interval(self) -> None: ...

        @job(CronTrigger(hour=3, timezone="Europe/Berlin"))
        def cron(self) -> None: ...

        @job(DateTrigger("2026-01-01 00:25:00", timezone="UTC"))
        def once(self) -> None: ...

        @job(OrTrigger([CronTrigger(minute=5, timezone=UTC), CronTrigger(minute=7, timezone=UTC)]))
        def either(self) -> None: ...

    story = live(Command, FakeClock(wall("2026-01-01 00:00")), max_seconds=3599)
    assert times(story.of("interval")) == [f"Thu 00:{m}0+0000" for m in range(6)]
    assert times(story.of("once")) == ["Thu 00:25+0000"]
    assert times(story.of("either")) == ["Thu 00:05+0000", "Thu 00:07+0000"]
    assert not story.of("cron")


def test_a_daemon_ends_when_none_of_its_jobs_is_due_again() -> None:
    trigger = DateTrigger("2026-01-01 00:25:00", timezone="UTC")
    story = live(daemon(turn=method(trigger)), FakeClock(wall("2026-01-01")))
    assert len(story.runs) == 1


def test_a_trigger_is_also_a_schedule_for_a_plain_loop() -> None:
    class Command(BaseDaemonCommand):
        schedule = CronTrigger(minute="*/10", timezone=UTC)  # type: ignore[assignment]

        def tick(self) -> None: ...

    story = live(Command, FakeClock(wall("2026-01-01 00:01")), max_ticks=3)
    assert times(story.runs) == ["Thu 00:10+0000", "Thu 00:20+0000", "Thu 00:30+0000"]


# Clocks


SCHEDULES = {
    "every": Every(seconds=60),
    "cron": Cron("* * * * *"),
    "interval trigger": IntervalTrigger(seconds=60, start_date=datetime(2026, 1, 1, tzinfo=UTC)),
    "cron trigger": CronTrigger(minute="*", timezone=UTC),
    "exclusive": Aligned(seconds=60),
}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("by", [-86400, -3600, -90, 90, 3600, 86400])
def test_setting_the_wall_clock_stops_no_job_and_causes_no_burst(kind: str, by: float) -> None:
    clock = SetClock(wall("2026-01-05 12:00:01"), after=600, by=by)
    story = live(daemon(turn=method(SCHEDULES[kind])), clock, max_seconds=1200)
    started = starts(story.runs)
    assert 19 <= len(started) <= 22, started
    gaps = [round(later - earlier, 3) for earlier, later in pairwise(started)]
    assert max(gaps) <= 121
    assert sum(gap < 58 for gap in gaps) <= 2, gaps  # a skipped time of day runs once


@pytest.mark.parametrize("by", [-3600, 3600])
def test_intervals_are_untouched_by_the_wall_clock(by: float) -> None:
    clock = SetClock(wall("2026-01-05 12:00"), after=95, by=by)
    every = live(daemon(turn=method(Every(seconds=30))), clock, max_seconds=200)
    assert starts(every.runs) == [0, 30, 60, 90, 120, 150, 180]
    clock = SetClock(wall("2026-01-05 12:00"), after=95, by=by)
    trigger = IntervalTrigger(seconds=30, start_date=datetime(2026, 1, 5, 12, tzinfo=UTC))
    story = live(daemon(turn=method(trigger)), clock, max_seconds=200)
    assert starts(story.runs)[-4:] == [90, 120, 150, 180]


def test_cron_jobs_follow_the_same_rules_as_a_loop_when_the_clocks_change() -> None:
    night = wall("2026-10-24 12:00", "Europe/Berlin")
    schedule = Cron("30 2 * * *", timezone="Europe/Berlin")
    story = live(daemon(turn=method(schedule)), FakeClock(night), max_ticks=2, pulse=600)
    assert times(story.runs, "Europe/Berlin") == ["Sun 02:30+0200", "Mon 02:30+0100"]


def test_after_the_process_was_frozen_each_job_runs_once_and_goes_on() -> None:
    class Frozen(FakeClock):
        def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
            frozen = 3605 if self.moment().monotonic == 30 else 0
            super().wait(seconds + frozen, told_to_stop)

    class Command(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=10))
        def often(self) -> None: ...

        @job(Cron("* * * * *"))
        def cron(self) -> None: ...

    story = live(Command, Frozen(wall("2026-01-05 12:00:30")), max_seconds=3700)
    assert starts(story.of("often")) == [0, 10, 20, 30, 3645, 3650, 3660, 3670, 3680, 3690]
    assert starts(story.of("cron")) == [30, 3645, 3690]
    late = [run for run in story.runs if run.started.monotonic == 3645]
    assert sorted(run.late for run in late) == pytest.approx([5, 15])
    assert set(story.reasons()) == {"grace"}
    assert len(story.skips) < 200  # few enough to read


def test_a_job_of_each_second_goes_on_at_once_after_a_frozen_month() -> None:
    class Frozen(FakeClock):
        def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
            frozen = 30 * 86400 if self.moment().monotonic == 3 else 0
            super().wait(seconds + frozen, told_to_stop)

    began = time.monotonic()
    story = live(daemon(turn=method(Every(seconds=1))), Frozen(), max_ticks=6)
    assert time.monotonic() - began < 3
    assert [run.started.monotonic - 30 * 86400 for run in story.runs[4:]] == [4, 5]


# Grace


def test_a_late_run_may_start_until_the_next_one_is_due() -> None:
    clock = FakeClock()
    command = daemon(turn=method(Every(seconds=100)))
    story = live(command, late(clock, by=99), max_seconds=350)
    assert [round(run.late) for run in story.runs] == [0, 99, 0, 0]
    assert not story.skips


def test_a_run_past_its_grace_is_skipped_and_announced() -> None:
    command = daemon(turn=method(Every(seconds=100), grace=30))
    story = live(command, late(FakeClock(), by=31), max_seconds=350)
    assert starts(story.runs) == [0, 200, 300]
    assert story.skips == [("turn", 100, "grace")]
    story = live(command, late(FakeClock(), by=29), max_seconds=350)
    assert starts(story.runs) == [0, 129, 200, 300]


def late(clock: FakeClock, by: float) -> FakeClock:
    """The same clock, but the wait that should end at 100 ends ``by`` seconds later."""

    class Late(FakeClock):
        def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
            due = self.moment().monotonic + seconds
            super().wait(seconds + (by if due == 100 else 0), told_to_stop)

    return Late()


# Failures


def fails(*errors: Exception | None) -> Callable[[], None]:
    pending = list(errors)

    def work() -> None:
        if pending and (error := pending.pop(0)):
            raise error

    return work


def test_a_failed_run_delays_its_next_run_and_no_other_job() -> None:
    class Command(BaseDaemonCommand):
        ledger = False
        work = staticmethod(fails(*[ValueError("no")] * 5))

        @job(Every(seconds=2))
        def bad(self) -> None:
            self.work()

        @job(Every(seconds=2))
        def good(self) -> None: ...

    story = live(Command, max_seconds=60)
    assert [run.failures for run in story.of("bad")][:6] == [1, 2, 3, 4, 5, 0]
    started = starts(story.of("bad"))
    pauses = [later - earlier for earlier, later in pairwise(started[:5])]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 4
    assert all(start % 2 == 0 for start in started)
    assert len(story.of("good")) == 30
    assert set(story.skips) <= {("bad", float(due), "back-off") for due in range(0, 60, 2)}


def test_a_run_that_lost_its_connection_is_tried_again_at_once_but_only_once() -> None:
    lost = OperationalError(2013, "Lost connection")
    story = live(daemon(turn=method(Every(seconds=100), fails(lost))), max_seconds=250)
    assert starts(story.runs) == [0, 0, 100, 200]


def test_max_failures_applies_to_each_job() -> None:
    command = daemon(turn=method(Every(seconds=1), fails(*[ValueError("no")] * 9)))
    with pytest.raises(CommandError, match="failed 3 times in a row") as caught:
        live(command, max_failures=3)
    assert caught.value.returncode == 75


def test_on_error_is_called_for_a_job() -> None:
    seen = []

    class Command(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=1))
        def turn(self) -> None:
            raise ValueError("no")

        def on_error(self, iteration: Iteration) -> None:
            seen.append((iteration.job, str(iteration.error)))

    live(Command, max_ticks=1)
    assert seen == [("turn", "no")]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_error_that_ends_a_loop_ends_a_daemon_with_jobs(kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind(3)

    with pytest.raises(kind):
        live(daemon(turn=method(Every(seconds=1), leave)))


def test_max_ticks_and_max_seconds_apply_to_all_jobs_together() -> None:
    names = ("a", "b", "c")
    command = daemon(**{name: method(Every(seconds=1)) for name in names})
    assert [each.name for each in jobs_of(command)] == list(names)
    assert len(live(command, max_ticks=7).runs) == 7
    assert len(live(command, max_seconds=2.5).runs) == 9


# --job and --once


def test_job_and_once_run_one_job_now() -> None:
    class Command(BaseDaemonCommand):
        ledger = False

        @job(Cron("0 3 * * *"))
        def report(self) -> None: ...

        @job(Every(seconds=1))
        def other(self) -> None: ...

    assert [run.job for run in live(Command, job=["report"], once=True).runs] == ["report"]
    assert [run.job for run in live(Command, once=True).runs] == ["report", "other"]
    assert {run.job for run in live(Command, job="other", max_ticks=3).runs} == {"other"}
    with pytest.raises(CommandError, match="no job 'reprot'; there are report, other") as caught:
        live(Command, job=["reprot"], once=True)
    assert caught.value.returncode == 2


def test_once_raises_the_error_of_any_job() -> None:
    class Command(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=1))
        def bad(self) -> None:
            raise LookupError("nothing")

        @job(Every(seconds=1))
        def good(self) -> None: ...

    with pytest.raises(LookupError):
        live(Command, once=True)


# Log records and signals name the job


def test_log_records_of_a_run_name_its_job_also_in_a_coroutine() -> None:
    said = []

    class Command(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=60))
        def plain(self) -> None:
            self.beat("halfway")

        @job(Every(seconds=60))
        async def loop(self) -> None:
            self.beat("halfway")

    def hear(message: str, job: str, **_: Any) -> None:
        said.append((message, job))

    daemon_beat.connect(hear, sender=Command)
    live(Command, max_ticks=2)
    assert sorted(said) == [("halfway", "loop"), ("halfway", "plain")]


def test_the_record_of_a_due_time_that_was_skipped_carries_its_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    live(daemon(turn=method(Every(seconds=10), lambda: clock.advance(25))), clock, max_ticks=2)
    (record,) = [each for each in caplog.records if "did not run" in each.getMessage()]
    assert record.getMessage().startswith("test_scheduler turn due ")
    assert record.__dict__["job"] == "turn"


# Invalid jobs


def two_of_one_name() -> None:
    class Command(BaseDaemonCommand):
        @job(Every(seconds=1))
        def turn(self) -> None: ...

        @job(Every(seconds=2))
        def turn(self) -> None: ...  # noqa: F811


def a_generator() -> None:
    @job(Every(seconds=1))
    def run(self: Any) -> Any:
        yield


@pytest.mark.parametrize(
    ("define", "sentence"),
    [
        (two_of_one_name, "two jobs turn()"),
        (a_generator, "run() is a generator"),
        (lambda: job(len), "@job needs a schedule, as in @job(Every(minutes=5))"),
        (lambda: method(30), "job turn(): schedule must be Every(...), Cron(...), Poll(...) or a"),
        (lambda: method(IntervalTrigger), "job turn(): schedule must be Every"),
        (lambda: method(Every(seconds=1), grace=-1), "job turn(): grace"),
        (lambda: method(Every(seconds=1), grace=0), "job turn(): grace must be above zero"),
        (lambda: method(Every(seconds=1), tick_timeout=-5), "job turn(): tick_timeout"),
        (lambda: method(Every(seconds=1), grace="soon"), "not 'soon'"),
        (lambda: job(Cron("0 0 31 2 *")), "is no cron string: Bad day-of-month"),
        (lambda: job(Cron("0 0 * * *", timezone="Mars/Base")), "'Mars/Base' is no time zone"),
        (lambda: method(Poll(), catch_up=True), "no times to miss"),
        (lambda: method(Poll(), exclusive=True), "no two processes would agree"),
        (lambda: method(IntervalTrigger(seconds=3), exclusive=True), "no two processes would agre"),
        (lambda: job(Every(seconds=1))(lambda self, x: None), "self and nothing else: missing"),
        (lambda: job(Every(seconds=1))(lambda: None), "self and nothing else: too many"),
        (lambda: job(Every(seconds=1))(property(lambda self: 1)), "decorates methods"),
    ],
)
def test_an_invalid_job_is_refused_when_its_class_is_defined(
    define: Callable[[], Any], sentence: str
) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        define()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def usage(members: dict[str, Any], **options: Any) -> str:
    with pytest.raises(CommandError) as caught:
        live(daemon(**members), **options)
    assert caught.value.returncode == 2
    return str(caught.value)


def test_a_daemon_with_invalid_jobs_ends_with_one_sentence_and_2() -> None:
    turn = method(Every(seconds=1))
    past = DateTrigger(datetime.now(UTC) - timedelta(days=1))
    assert "jobs and a tick()" in usage({"work": turn, "tick": lambda self: None})
    assert "its class schedule would have no effect" in usage(
        {"work": turn, "schedule": Every(seconds=1)}
    )
    assert "no --every" in usage({"work": turn}, every="5s")
    assert "no --cron" in usage({"work": turn}, cron="* * * * *")
    assert "threads" in usage({"work": turn}, threads="0")
    assert "threads" in usage({"work": turn, "threads": None})
    assert "never fires" in usage({"work": method(past)}, clock=FakeClock(time.time()))
    alone = method(Every(seconds=1), exclusive=True)
    assert "ledger = False" in usage({"work": alone})
    assert "has no jobs" in usage({"tick": lambda self: None, "schedule": Every(1)}, job=["x"])


def test_jobs_are_values_and_inherited() -> None:
    class Base(BaseDaemonCommand):
        @job(Every(minutes=5), grace="1h", tick_timeout=60)
        def refresh(self) -> None: ...

    class Command(Base):
        @job(Cron("0 3 * * *"))
        def report(self) -> None: ...

    refresh, report = jobs_of(Command)
    assert (refresh.name, refresh.grace, refresh.tick_timeout) == ("refresh", 3600, 60)
    assert str(refresh) == "refresh every 5m"
    assert isinstance(report.schedule, Schedule)
    assert report != refresh


def test_the_time_limit_of_a_job_may_be_none_as_in_the_option() -> None:
    class Command(BaseDaemonCommand):
        @job(Every(seconds=1), tick_timeout="none")
        def turn(self, *, dry: bool = False) -> None: ...

    assert jobs_of(Command)[0].tick_timeout is None


def test_a_job_that_a_subclass_overrides_without_a_schedule_is_refused() -> None:
    class Base(BaseDaemonCommand):
        ledger = False

        @job(Every(seconds=1))
        def first(self) -> None: ...

        @job(Every(seconds=1))
        def second(self) -> None: ...

    class Silent(Base):
        def first(self) -> None: ...

    class Without(Base):
        first = None  # type: ignore[assignment]

    with pytest.raises(CommandError) as caught:
        live(Silent, max_ticks=1)
    assert caught.value.returncode == 2
    assert str(caught.value) == (
        "test_scheduler.first() overrides a job and is none: put @job(...) above it, too, or "
        "write first = None to remove the job"
    )
    assert [each.name for each in jobs_of(Without)] == ["second"]
