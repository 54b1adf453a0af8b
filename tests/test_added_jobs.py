"""APScheduler's API for jobs that are known only at run time, tried against APScheduler itself."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler import events
from apscheduler.executors.debug import DebugExecutor
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.schedulers import base as their_base
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from django.core.management import CommandError, call_command
from django.db import OperationalError

from daemonkit import BaseDaemonCommand, Cron, Every, Poll, job
from daemonkit.jobs.added_jobs import AddedJobs
from daemonkit.testing import FakeClock

BEGUN = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday
SECONDS = 40
DECISIONS = events.EVENT_ALL & ~(
    events.EVENT_SCHEDULER_STARTED
    | events.EVENT_SCHEDULER_SHUTDOWN
    | events.EVENT_EXECUTOR_ADDED
    | events.EVENT_JOBSTORE_ADDED
)
NAMES = {value: name for name, value in vars(events).items() if name.startswith("EVENT_JOB_")}


class Told:
    """What a scheduler's listener was told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def __call__(self, event: Any) -> None:
        times = getattr(event, "scheduled_run_times", [getattr(event, "scheduled_run_time", None)])
        self.events.append(
            (
                NAMES.get(event.code, event.code),
                getattr(event, "job_id", ""),
                [time and (time - BEGUN).total_seconds() for time in times],
                getattr(event, "retval", None),
                type(getattr(event, "exception", None)).__name__,
            )
        )

    def of(self, name: str) -> list[Any]:
        return [each for each in self.events if each[0] == name]


Play = Callable[[Any, float], None]
"""Makes calls at a second. It is asked at each second, with the scheduler."""


def ours(play: Play, clock: FakeClock | None = None, **members: Any) -> Told:
    told, clock = Told(), clock or FakeClock(BEGUN)

    class Command(BaseDaemonCommand):
        ledger = False
        pulse = 1.0

        def add_jobs(self, scheduler: Any) -> None:
            scheduler.add_listener(told, DECISIONS)
            play(scheduler, 0)

        @job(Every(seconds=1))
        def played(self) -> None:
            if second := round(self.life.clock.moment().monotonic):
                play(self.scheduler, second)

    for name, member in members.items():
        setattr(Command, name, member)
    call_command(Command(), clock=clock, max_seconds=SECONDS, raise_errors=False)
    return told


def theirs(play: Play, monkeypatch: pytest.MonkeyPatch) -> Told:
    """The same calls on a scheduler of APScheduler's, whose runs take no time."""
    told, now = Told(), BEGUN

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now.astimezone(tz)

    for module in ("schedulers.base", "executors.base", "triggers.interval", "triggers.date"):
        monkeypatch.setattr(f"apscheduler.{module}.datetime", Frozen)
    defaults = {"misfire_grace_time": None}
    scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)
    scheduler.add_executor(DebugExecutor())
    scheduler._event = threading.Event()
    their_base.BaseScheduler.start(scheduler)
    scheduler.add_listener(told, DECISIONS)
    for second in range(SECONDS):
        now = BEGUN + timedelta(seconds=second)
        play(scheduler, second)
        scheduler._process_jobs()
    return told


def work(*args: Any) -> str:
    if "fail" in args:
        raise ValueError("no")
    return "-".join(args)


def added(scheduler: Any, second: float) -> None:
    if second == 0:
        scheduler.add_job(work, "interval", seconds=7, args=["a"], id="a")
        scheduler.add_job("tests.test_added_jobs:work", IntervalTrigger(seconds=9, timezone=UTC,
                          start_date=BEGUN), ["b"], id="b", name="the b")  # fmt: skip
        scheduler.add_job(work, CronTrigger(second="*/15", timezone=UTC), id="c")
    if second == 5:
        scheduler.add_job(work, "date", run_date=BEGUN + timedelta(seconds=8), id="once")
        scheduler.add_job(work, id="now")
        scheduler.add_job(work, "interval", seconds=3, id="paused", next_run_time=None)


def replaced(scheduler: Any, second: float) -> None:
    if second == 0:
        scheduler.add_job(work, "interval", seconds=3, args=["old"], id="a")
    if second == 4:
        with pytest.raises(ConflictingIdError):
            scheduler.add_job(work, "interval", seconds=5, id="a")
        scheduler.add_job(work, "interval", seconds=5, args=["new"], id="a", replace_existing=True)


def removed(scheduler: Any, second: float) -> None:
    if second == 0:
        for name in "abc":
            scheduler.add_job(work, "interval", seconds=3, id=name)
    if second == 4:
        scheduler.remove_job("a")
        with pytest.raises(JobLookupError):
            scheduler.remove_job("a")
    if second == 14:
        scheduler.get_job("b").remove()
        scheduler.remove_all_jobs()
        assert scheduler.get_jobs() == []


def paused(scheduler: Any, second: float) -> None:
    if second == 0:
        scheduler.add_job(work, "interval", seconds=3, id="a")
        scheduler.add_job(work, "date", run_date=BEGUN + timedelta(seconds=20), id="d")
    if second == 5:
        assert scheduler.pause_job("a").next_run_time is None
    if second == 16:
        scheduler.resume_job("a")
        assert scheduler.get_job("a").next_run_time > BEGUN + timedelta(seconds=15)
    with pytest.raises(JobLookupError):
        scheduler.resume_job("nothing")


def rescheduled(scheduler: Any, second: float) -> None:
    if second == 0:
        scheduler.add_job(work, "interval", seconds=3, id="a")
    if second == 4:
        changed = scheduler.reschedule_job("a", trigger="interval", seconds=10)
        assert changed.next_run_time == BEGUN + timedelta(seconds=14)
    if second == 30:
        scheduler.get_job("a").reschedule("cron", second="*/2")


def modified(scheduler: Any, second: float) -> None:
    if second == 0:
        scheduler.add_job(work, "interval", seconds=3, args=["old"], id="a")
    if second == 4:
        scheduler.modify_job("a", args=["new"], name="another", max_instances=2)
        scheduler.get_job("a").modify(next_run_time=BEGUN + timedelta(seconds=11))
        assert scheduler.get_job("a").next_run_time == BEGUN + timedelta(seconds=11)
    with pytest.raises(AttributeError):
        scheduler.modify_job("a", nothing=1)


def failed(scheduler: Any, second: float) -> None:
    if second == 0:
        scheduler.add_job(work, "date", args=["fail"], id="a")
        scheduler.add_job(work, "interval", seconds=30, args=["fail"], id="b")


def waited(scheduler: Any, second: float) -> None:
    """What is due in a pause of the scheduler is run or missed afterwards."""
    if second == 0:
        for number, (coalesce, grace) in enumerate([(True, None), (False, None), (True, 2)]):
            scheduler.add_job(work, "interval", seconds=4, id=f"{number}", coalesce=coalesce,
                              misfire_grace_time=grace)  # fmt: skip
    if second == 5:
        scheduler.pause()
    if second == 19:
        scheduler.resume()


PLAYS = [added, replaced, removed, paused, rescheduled, modified, failed, waited]


@pytest.mark.parametrize("play", PLAYS)
def test_the_same_calls_have_the_same_events(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ours(play)
    with monkeypatch.context() as patched:
        expected = theirs(play, patched)
    assert sorted(map(repr, told.events)) == sorted(map(repr, expected.events))
    assert in_order(told) == in_order(expected)
    assert len(expected.events) >= 4


def in_order(told: Told) -> dict[str, list[Any]]:
    """The events of each job, in their order, without those that APScheduler sends when it has
    submitted a run: the executor of these tests ends the run before that."""
    found: dict[str, list[Any]] = {}
    for event in told.events:
        if event[0] not in ("EVENT_JOB_SUBMITTED", "EVENT_JOB_REMOVED"):
            found.setdefault(event[1], []).append(event)
    return found


def test_print_jobs_prints_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def play(scheduler: Any, second: float) -> None:
        if second == 0:
            scheduler.add_job(work, "interval", seconds=7, id="a")
            scheduler.add_job(work, "cron", hour=3, id="b", name="at night")
            scheduler.add_job(work, "interval", seconds=9, id="c", next_run_time=None)
        if second == 10:
            with io.StringIO() as out:
                scheduler.print_jobs(out=out)
                texts.append(out.getvalue())

    ours(play)
    with monkeypatch.context() as patched:
        theirs(play, patched)
    first, second = texts
    assert first == second
    assert "at night (trigger: cron[hour='3'], next run at: 2026-03-03 03:00:00 UTC)" in first
    assert "paused" in first


def test_a_listener_that_was_removed_hears_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[Any]] = []

    def play(scheduler: Any, second: float) -> None:
        if second == 0:
            heard.append([])
            scheduler.add_listener(heard[-1].append, events.EVENT_JOB_EXECUTED)
            scheduler.add_job(work, "interval", seconds=3, id="a")
        if second == 11:
            scheduler.remove_listener(heard[-1].append)

    ours(play)
    with monkeypatch.context() as patched:
        theirs(play, patched)
    first, second = ([event.scheduled_run_time for event in each] for each in heard)
    assert first == second
    assert len(first) == 3


def test_it_is_a_scheduler_of_apschedulers() -> None:
    assert issubclass(AddedJobs, their_base.BaseScheduler)


def opened(add: Callable[[Any], Any], **options: Any) -> None:
    class Command(BaseDaemonCommand):
        ledger = False

        def add_jobs(self, scheduler: Any) -> None:
            add(scheduler)

        @job(Cron("0 3 * * *"))
        def report(self) -> None: ...

    call_command(Command(), clock=FakeClock(BEGUN), max_seconds=30, **options)


def twice(scheduler: Any) -> None:
    scheduler.add_job(work, "interval", seconds=9, id="a")
    scheduler.add_job(work, "interval", seconds=9, id="a")


@pytest.mark.parametrize(
    ("add", "sentence"),
    [
        (twice, "there is a job 'a' already: .* or say replace_existing=True"),
        (lambda it: it.add_job(print, "cron", args=["a"], kwargs={"nothing": 1}), "nothing"),
        (lambda it: it.add_job(work, "hourly"), "no trigger 'hourly'; there are .*cron, date"),
        (lambda it: it.add_job(work, jobstore="sql"), "no job store 'sql'.*exclusive=True.*leader"),
        (lambda it: it.add_jobstore("sqlalchemy"), "no job store 'sqlalchemy'.*exclusive=True"),
        (lambda it: it.add_job(work, executor="processpool"), "no executor .* set threads"),
        (lambda it: it.reschedule_job("report", trigger="cron"), "report is a method under @job"),
        (lambda it: it.add_job(work, Poll()), "takes no .*@job"),
        (lambda it: it.add_job(work, Cron("0 3 * * *"), exclusive=True), "needs an id"),
        (lambda it: it.add_job(work, id="a", exclusive=True), "needs the ledger"),
        (lambda it: it.add_job(work, id="a", exclusive="atomic"), "takes exclusive=True or False"),
        (lambda it: it.add_job(work, id="a", exclusive=True, max_instances=2), "one run at a time"),
        (lambda it: it.start(), "starts its scheduler itself: remove"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(add: Any, sentence: str) -> None:
    with pytest.raises(CommandError, match=rf"add_jobs\(\): .*{sentence}") as raised:
        opened(add)
    assert raised.value.returncode == 2


def test_once_runs_each_added_job_once() -> None:
    ran: list[int] = []
    opened(lambda it: [it.add_job(ran.append, "interval", hours=1, args=[n]) for n in (1, 2)],
           once=True)  # fmt: skip
    assert sorted(ran) == [1, 2]


def test_a_clock_that_is_set_back_silences_no_added_job() -> None:
    clock, ran = FakeClock(BEGUN), []

    def add(scheduler: Any) -> None:
        scheduler.add_job(lambda: ran.append(clock.moment().monotonic), "interval", seconds=5)
        scheduler.add_job(clock.step, "date", run_date=BEGUN + timedelta(seconds=11), args=[-3600])

    class Command(BaseDaemonCommand):
        ledger = False

        def add_jobs(self, scheduler: Any) -> None:
            add(scheduler)

    call_command(Command(), clock=clock, max_seconds=40)
    assert [round(each) for each in ran] == [5, 10, 15, 20, 25, 30, 35]


def test_a_job_is_tried_again_after_a_lost_connection_and_waits_after_other_failures() -> None:
    ran: list[float] = []

    def lose() -> None:
        ran.append(len(ran))
        if len(ran) == 1:
            raise OperationalError(2006, "MySQL server has gone away")

    opened(lambda it: it.add_job(lose), raise_errors=False)
    assert len(ran) == 2


def test_a_thousand_jobs_are_changed_from_eight_threads_while_they_run() -> None:
    ran, wrong = Counter[str](), []

    def change(scheduler: Any, part: int) -> None:
        try:
            for number in range(part, 1000, 8):
                name = f"job-{number}"
                made = scheduler.add_job(ran.update, "interval", seconds=0.05, args=[[name]],
                                         id=name, next_run_time=None)  # fmt: skip
                assert made.next_run_time is None
                assert scheduler.resume_job(name).next_run_time is not None
                due = datetime.now(UTC) + timedelta(hours=1)
                assert scheduler.modify_job(name, next_run_time=due).next_run_time == due
                scheduler.reschedule_job(name, trigger="interval", seconds=0.02)
                if number % 2:
                    scheduler.remove_job(name)
        except BaseException as error:
            wrong.append(error)

    class Command(BaseDaemonCommand):
        ledger = False

        def add_jobs(self, scheduler: Any) -> None:
            parts = [threading.Thread(target=change, args=(scheduler, n)) for n in range(8)]
            watch = threading.Thread(target=self.watch, args=(scheduler, parts))
            for thread in (*parts, watch):
                thread.start()

        def watch(self, scheduler: Any, parts: list[threading.Thread]) -> None:
            for thread in parts:
                thread.join()
            while len([name for name in list(ran) if not int(name[4:]) % 2]) < 500:
                if self.stopping:
                    return
            self.left = {each.id for each in scheduler.get_jobs()}
            self.finish("changed")

    command = Command()
    call_command(command, max_seconds=30)
    assert not wrong
    assert command.left == {f"job-{number}" for number in range(0, 1000, 2)}


@pytest.mark.parametrize("instances", [1, 2])
def test_no_more_runs_of_a_job_overlap_than_its_max_instances(instances: int) -> None:
    reached, end = threading.Event(), threading.Event()
    together, most, lock = 0, [0], threading.Lock()

    def run() -> None:
        nonlocal together
        with lock:
            together += 1
            most.append(together)
        end.wait(20)
        with lock:
            together -= 1

    class Command(BaseDaemonCommand):
        ledger = False

        def add_jobs(self, scheduler: Any) -> None:
            scheduler.add_listener(self.note, events.EVENT_JOB_MAX_INSTANCES)
            scheduler.add_job(run, "interval", seconds=0.02, max_instances=instances)

        def note(self, event: Any) -> None:
            reached.set()
            end.set()
            self.finish("seen")

    call_command(Command(), max_seconds=20)
    assert reached.is_set()
    assert max(most) == instances


def test_a_job_that_skips_itself_has_ended_without_an_error() -> None:
    told = Told()

    class Command(BaseDaemonCommand):
        ledger = False

        def add_jobs(self, scheduler: Any) -> None:
            scheduler.add_listener(told)
            scheduler.add_job(self.skip, args=["closed"], id="a")

    call_command(Command(), clock=FakeClock(BEGUN), max_ticks=1)
    assert told.of("EVENT_JOB_EXECUTED") == [("EVENT_JOB_EXECUTED", "a", [0.0], None, "NoneType")]
