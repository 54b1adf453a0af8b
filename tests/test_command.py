"""Daemons in a user's test: call_command(), a bare iterate(), hooks, signals and settings."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError, transaction
from django.dispatch import Signal

from daemonkit import Backoff, BaseDaemonCommand, Cron, Every, Exit, Iteration, Poll, Problem
from daemonkit import signals as moments
from daemonkit.testing import FakeClock
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import is_gone, kill_all, note, notes, session


class Counting(BaseDaemonCommand):
    """Keeps what its ticks saw in a class attribute, because an instance may be run twice."""

    schedule = Every(seconds=30)
    backoff = Backoff(first=1, factor=2, cap=8)
    region: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[Any] = []
        self.iterations: list[Iteration] = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--region", default="eu")

    def tick(self) -> Any:
        self.seen.append(self.options.get("region"))
        return len(self.seen)


@pytest.fixture
def hearing() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """All signals that are sent while the test runs, in order."""
    heard: list[tuple[str, dict[str, Any]]] = []
    names = {name: value for name, value in vars(moments).items() if isinstance(value, Signal)}
    receivers = {}
    for name, moment in names.items():
        receivers[name] = lambda name=name, **details: heard.append((name, details))
        moment.connect(receivers[name])
    yield heard
    for name, moment in names.items():
        moment.disconnect(receivers[name])


def iterations(heard: list[tuple[str, dict[str, Any]]]) -> list[Iteration]:
    return [details["iteration"] for name, details in heard if name == "iteration_finished"]


# In a test


def test_call_command_runs_ticks_without_a_process_and_without_waiting_on_a_fake_clock() -> None:
    daemon, clock = Counting(), FakeClock()
    call_command(daemon, max_ticks=3, region="us", clock=clock)
    assert daemon.seen == ["us", "us", "us"]
    assert clock.moment().monotonic == 60


def test_waits_are_real_unless_a_schedule_or_a_clock_is_passed() -> None:
    daemon = Counting()
    call_command(daemon, max_ticks=3, schedule=Every(seconds=0.01))
    assert len(daemon.seen) == 3


def test_one_instance_can_be_run_twice_and_keeps_nothing_of_the_first_run() -> None:
    daemon = Counting()
    call_command(daemon, max_ticks=2, schedule=Every(seconds=0.01), region="us")
    call_command(daemon, once=True)
    assert daemon.seen == ["us", "us", "eu"]
    assert daemon.schedule == Counting.schedule
    assert daemon.max_ticks is None


def test_a_bare_iterate_gives_one_iteration() -> None:
    daemon = Counting()
    first = daemon.iterate()
    second = daemon.iterate(first)
    assert (first.number, first.result, first.error, first.failures) == (1, 1, None, 0)
    assert (second.number, second.result) == (2, 2)
    assert first.seconds >= 0
    assert daemon.seen == [None, None]  # no options were parsed
    assert not daemon.stopping


def test_a_tick_in_a_test_may_wait_beat_and_check_whether_it_should_stop() -> None:
    class Patient(Counting):
        def tick(self) -> Any:
            self.beat("1 of 1")
            return self.stopping, self.wait(0.001)

    assert Patient().iterate().result == (False, True)


@pytest.mark.django_db
def test_a_tick_runs_inside_a_users_testcase() -> None:
    from shop.models import Supplier

    class Writing(Counting):
        def tick(self) -> Any:
            Supplier.objects.create(code=f"A{super().tick()}")

    daemon = Writing()
    with transaction.atomic():  # as in a TestCase, whose rows are rolled back
        assert daemon.iterate().error is None
        call_command(daemon, max_ticks=2, clock=FakeClock())
        assert Supplier.objects.count() == 3
        transaction.set_rollback(True)
    assert not Supplier.objects.exists()


def test_off_the_main_thread_a_daemon_runs_and_takes_no_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    daemon = Counting()
    thread = threading.Thread(
        target=lambda: call_command(daemon, max_ticks=2, schedule=Every(seconds=0.01))
    )
    thread.start()
    thread.join(10)
    assert daemon.seen == ["eu", "eu"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_handlers_and_the_wake_up_descriptor_are_restored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    call_command(Counting(), once=True)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not [thread for thread in threading.enumerate() if "daemonkit" in thread.name]


def test_a_daemon_inside_a_tick_of_another_is_stopped_by_the_same_signal() -> None:
    class Inner(Counting):
        def tick(self) -> Any:
            super().tick()
            signal.raise_signal(signal.SIGTERM)
            self.wait(5)

    inner = Inner()

    class Outer(Counting):
        def tick(self) -> Any:
            super().tick()
            call_command(inner)
            return self.stopping

    outer, sent = Outer(), []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: sent.append(signum))
    try:
        call_command(outer)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (len(inner.seen), len(outer.seen)) == (1, 1)
    assert sent == [signal.SIGTERM]  # once, when the outer one has returned


# The loop


def test_ticks_start_at_their_interval_however_long_they_take(
    hearing: list[tuple[str, dict[str, Any]]],
) -> None:
    clock = FakeClock()

    class Slow(Counting):
        def tick(self) -> Any:
            clock.advance([10, 70, 0, 0][len(self.seen)])
            return super().tick()

    call_command(Slow(), max_ticks=4, clock=clock)
    starts = [iteration.started.monotonic for iteration in iterations(hearing)]
    assert starts == [0, 30, 100, 130]  # at once after the overlong tick, and counted from there


def test_poll_ticks_again_at_once_while_there_is_work(
    hearing: list[tuple[str, dict[str, Any]]],
) -> None:
    class Batches(Counting):
        schedule = Poll(idle=5)

        def tick(self) -> Any:
            super().tick()
            return len(self.seen) in (1, 2, 4)

    call_command(Batches(), max_ticks=6, clock=FakeClock())
    starts = [iteration.started.monotonic for iteration in iterations(hearing)]
    assert starts == [0, 0, 0, 5, 5, 10]


def test_a_day_long_wait_announces_a_pulse_in_every_slice(
    hearing: list[tuple[str, dict[str, Any]]],
) -> None:
    clock = FakeClock(wall=1_700_000_000)
    call_command(Counting(), max_ticks=1, clock=clock, schedule=Cron("@daily"), pulse="10m")
    assert max(clock.waits) == 600
    pulses = [name for name, _ in hearing if name == "daemon_pulse"]
    assert len(pulses) >= len(clock.waits)


def test_max_seconds_ends_the_life_in_the_middle_of_a_wait() -> None:
    daemon, clock = Counting(), FakeClock()
    call_command(daemon, max_seconds=100, clock=clock)
    assert len(daemon.seen) == 4
    assert clock.moment().monotonic == pytest.approx(100)


def test_a_failed_tick_is_tried_again_with_a_growing_pause(
    hearing: list[tuple[str, dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Counting):
        schedule = Every(seconds=0.5)

        def tick(self) -> Any:
            if super().tick() < 5:
                raise ValueError("no such price")

    with caplog.at_level(logging.INFO, "daemonkit"):
        call_command(Failing(), max_ticks=6, clock=FakeClock(), raise_errors=False)
    failed = iterations(hearing)
    assert [iteration.failures for iteration in failed] == [1, 2, 3, 4, 0, 0]
    pauses = [iteration.pause for iteration in failed]
    assert all(
        low <= pause <= high
        for low, pause, high in zip((0.5, 1, 2, 4), pauses, (1, 2, 4, 8), strict=False)
    )
    assert pauses[4:] == [0, 0]
    assert caplog.text.count("ValueError: no such price\n") >= 4
    assert caplog.text.count("Traceback") == 1


def test_a_tick_that_lost_its_connection_is_tried_again_at_once_but_only_once(
    hearing: list[tuple[str, dict[str, Any]]],
) -> None:
    class Losing(Counting):
        schedule = Cron("@yearly")

        def tick(self) -> Any:
            if super().tick() < 4:
                raise OperationalError(2013, "Lost connection to MySQL server during query")

    clock = FakeClock(wall=1_700_000_000)
    call_command(Losing(), max_ticks=4, pulse="1d", clock=clock, raise_errors=False)
    lost = iterations(hearing)
    assert [iteration.problem for iteration in lost[:3]] == [Problem.LOST] * 3
    assert lost[0].pause == 0
    assert 1 <= lost[1].pause <= 2
    assert lost[3].ended.wall - lost[0].started.wall < 10  # not next year


def test_max_failures_ignores_ticks_that_failed_because_the_database_was_away() -> None:
    class Away(Counting):
        def tick(self) -> Any:
            number = super().tick()
            if number < 8:
                raise OperationalError(2002, "Can't connect to server")
            raise ValueError("mine")

    daemon = Away()
    with pytest.raises(CommandError, match=r"failed 2 times in a row, .* ValueError") as ended:
        call_command(daemon, max_failures=2, clock=FakeClock(), raise_errors=False)
    assert ended.value.returncode == Exit.MAX_FAILURES
    assert len(daemon.seen) == 9


def test_once_raises_the_ticks_own_exception() -> None:
    class Failing(Counting):
        def tick(self) -> Any:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        call_command(Failing(), once=True)


def test_call_command_stops_at_the_first_failed_tick_and_raises_its_error(
    hearing: list[tuple[str, dict[str, Any]]],
) -> None:
    class Failing(Counting):
        def tick(self) -> Any:
            if super().tick() == 2:
                raise KeyError("mine")

    daemon, clock = Failing(), FakeClock()
    with pytest.raises(KeyError, match="mine"):
        call_command(daemon, max_ticks=5, clock=clock)
    assert len(daemon.seen) == 2
    (stopped,) = [details for name, details in hearing if name == "daemon_stopped"]
    assert stopped["reason"] == "failed with KeyError: 'mine'"


def test_call_command_raises_that_the_database_is_away_and_does_not_wait_for_it() -> None:
    class Unopened(Counting):
        @contextmanager
        def lifespan(self) -> Iterator[None]:
            raise OperationalError(2002, "Can't connect to server")
            yield

    with pytest.raises(OperationalError):
        call_command(Unopened(), clock=FakeClock())


def test_system_exit_in_a_tick_ends_the_daemon_and_closes_its_lifespan() -> None:
    closed = []

    class Leaving(Counting):
        @contextmanager
        def lifespan(self) -> Iterator[None]:
            try:
                yield
            finally:
                closed.append(True)

        def tick(self) -> Any:
            raise SystemExit(3)

    with pytest.raises(SystemExit) as ended:
        call_command(Leaving())
    assert ended.value.code == 3
    assert closed == [True]


def test_on_error_is_called_and_cannot_end_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    failures = []

    class Failing(Counting):
        def tick(self) -> Any:
            raise ValueError

        def on_error(self, iteration: Iteration) -> None:
            failures.append(iteration.failures)
            raise RuntimeError("broken hook")

    call_command(Failing(), max_ticks=2, clock=FakeClock(), raise_errors=False)
    assert failures == [1, 2]
    assert "on_error() failed" in caplog.text


# Signals


def test_the_signals_of_a_life_are_sent_in_order(
    hearing: list[tuple[str, dict[str, Any]]],
) -> None:
    daemon = Counting()
    call_command(daemon, max_ticks=2, clock=FakeClock())
    names = [name for name, _ in hearing if name != "daemon_pulse"]
    tick = ["iteration_started", "iteration_finished"]
    assert names == [
        "daemon_started",
        "daemon_ready",
        *tick,
        "daemon_waiting",
        *tick,
        "daemon_stopped",
    ]
    assert all(details["daemon"] is daemon for _, details in hearing)
    assert hearing[-1][1]["reason"] == "max_ticks of 2 reached"


def test_the_end_of_a_life_is_announced_with_what_ended_it(
    hearing: list[tuple[str, dict[str, Any]]],
) -> None:
    class Unopened(Counting):
        def lifespan(self) -> Any:
            raise ImproperlyConfigured("no such thing")

    class Odd(Counting):
        def lifespan(self) -> Any:
            raise ZeroDivisionError from KeyError("no cause of a CommandError")

    call_command(Counting(), once=True)
    assert hearing[-1][1]["reason"] == "it has ticked once"
    with pytest.raises(CommandError):
        call_command(Unopened(), clock=FakeClock())
    assert hearing[-1][1]["reason"] == "misconfigured"
    with pytest.raises(ZeroDivisionError):
        call_command(Odd(), clock=FakeClock())
    assert hearing[-1][1]["reason"] == "ZeroDivisionError"


def test_a_broken_listener_never_stops_the_work() -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("a broken monitor")

    for moment in (moments.iteration_started, moments.iteration_finished, moments.daemon_pulse):
        moment.connect(broken)
    try:
        daemon = Counting()
        call_command(daemon, max_ticks=3, clock=FakeClock())
    finally:
        for moment in (moments.iteration_started, moments.iteration_finished, moments.daemon_pulse):
            moment.disconnect(broken)
    assert len(daemon.seen) == 3


# Connections in a life


@pytest.mark.parametrize("max_age", [0, 300, None])
@pytest.mark.parametrize("health_checks", [False, True])
def test_no_tick_fails_when_every_session_is_killed_while_the_daemon_waits(
    server: Server, alias: MakeAlias, max_age: int | None, health_checks: bool
) -> None:
    probe = alias(server, CONN_MAX_AGE=max_age, CONN_HEALTH_CHECKS=health_checks)
    seen: list[int] = []

    class Asking(Counting):
        def tick(self) -> Any:
            seen.append(session(probe))

    class Killing(FakeClock):
        def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
            kill_all(server)
            super().wait(seconds, told_to_stop)

    daemon = Asking()
    call_command(daemon, max_ticks=4, max_failures=1, clock=Killing())
    assert len(set(seen)) == 4


def test_a_daemon_holds_no_session_when_it_has_ended(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, CONN_MAX_AGE=0)

    class Busy(Counting):
        schedule = Poll()

        def tick(self) -> Any:
            self.seen.append(session(probe))
            return True

    daemon = Busy()
    call_command(daemon, max_ticks=5)
    assert len(set(daemon.seen)) == 1
    eventually(is_gone(server, daemon.seen[0]))


def test_an_async_tick_does_its_queries_on_the_main_thread(
    server: Server, alias: MakeAlias
) -> None:
    probe = alias(server, CONN_MAX_AGE=None)

    class Asking(Counting):
        async def tick(self) -> Any:
            await sync_to_async(note)(probe, "async")
            return await sync_to_async(session)(probe)

    first = Asking().iterate()
    assert first.error is None
    assert first.result == session(probe)  # the connection of this thread
    kill_all(server)
    assert Asking().iterate().error is None
    assert notes(server) == ["async", "async"]


def test_lifespan_closes_on_a_fresh_connection(server: Server, alias: MakeAlias) -> None:
    probe = alias(server, CONN_MAX_AGE=None)

    class Logging(Counting):
        def lifespan(self) -> AbstractContextManager[None]:
            @contextmanager
            def log() -> Iterator[None]:
                note(probe, "opened")
                yield
                note(probe, "closed")

            return log()

        def tick(self) -> Any:
            kill_all(server)

    call_command(Logging(), once=True)
    assert notes(server) == ["opened", "closed"]


# Invalid classes


@pytest.mark.parametrize("name", ["handle", "run", "wait", "iterate"])
def test_overriding_a_method_that_runs_the_life_is_refused_when_the_class_is_defined(
    name: str,
) -> None:
    with pytest.raises(TypeError, match=rf"overrides {name}\(\), .*: write tick\(\) instead"):
        type("Command", (BaseDaemonCommand,), {name: lambda self: None})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pulse": "soon"}, r"pulse \(--pulse\) takes a duration such as .*, not 'soon'"),
        ({"pulse": "none"}, r"pulse \(--pulse\) needs a time"),
        ({"tick_timeout": "0"}, r"tick_timeout .* must be above zero, not 0"),
        ({"max_ticks": "many"}, "max_ticks .* takes a whole number above zero, not 'many'"),
        ({"max_ticks": 0}, "whole number above zero, not 0"),
        ({"max_failures": "-1"}, "whole number above zero, not '-1'"),
        ({"every": "1s", "cron": "* * * * *"}, "say --every or --cron, not both"),
        ({"schedule": 30}, r"schedule must be Every\(...\), Cron.* of APScheduler's, not 30"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_sentence(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence) as refused:
        call_command(Counting(), **options)
    assert refused.value.returncode == Exit.USAGE
    assert "\n" not in str(refused.value)
