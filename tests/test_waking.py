"""``daemonkit.wake()`` ends the wait of a daemon in another process, and no wake-up is lost."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

import daemonkit
from daemonkit import BaseDaemonCommand, Every, Exit, Poll
from daemonkit.models import Wake
from daemonkit.testing import FakeClock
from daemonkit.waking import sender
from daemonkit.waking.sender import Sender
from lab.pgbouncer import PgBouncer
from lab.processes import ROOT, Daemon, run_python
from lab.servers import PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.processes import Live
from tests.kit.waking import woken_through

NO_PULSE = ("--pulse", "1h")
"""The counter is looked at with each pulse: without one, only NOTIFY can wake a daemon."""


@pytest.fixture
def wakes(server: Server, alias: MakeAlias) -> Iterator[str]:
    """The table on the server, which ``wake()`` in this process uses, too."""
    with woken_through(alias(server)) as name:
        yield name


def saw(daemon: Daemon) -> list[int]:
    """How many rows each tick has seen."""
    return [int(line.split()[1]) for line in list(daemon.lines) if line.startswith("saw ")]


def starts(live: Live, *arguments: str, on: Server | str, **env: str) -> Daemon:
    daemon = live("woken", *arguments, on=on, **env)
    daemon.wait_for("ended")
    return daemon


def add_row(server: Server) -> None:
    server.execute("INSERT INTO entry (note) VALUES ('x')")


def test_a_wake_up_from_another_process_makes_a_tick_due_now(
    live: Live, server: Server, wakes: str
) -> None:
    daemon = starts(live, *NO_PULSE, on=server)
    for count in range(1, 4):
        add_row(server)
        daemonkit.wake("emails")
        daemon.wait_for(f"saw {count} at", within=10)
    daemonkit.wake("letters")  # nobody's
    assert daemon.stop() == 0
    assert saw(daemon) == [0, 1, 2, 3]


def test_a_wake_up_during_a_tick_is_followed_by_another_tick(
    live: Live, server: Server, wakes: str
) -> None:
    daemon = live("woken", "--seconds", "2", *NO_PULSE, on=server)
    daemon.wait_for("saw 0")
    add_row(server)
    daemonkit.wake("emails")
    daemon.wait_for("saw 1", within=15)
    assert daemon.stop() == 0


def test_a_wake_up_while_the_daemon_is_down_needs_no_second_tick(
    live: Live, server: Server, wakes: str
) -> None:
    daemonkit.wake("emails")
    eventually(lambda: times(wakes) == 1)
    daemon = starts(live, on=server)
    daemonkit.wake("emails")
    daemon.wait_for("saw 0 at", count=2, within=10)
    assert daemon.stop() == 0
    assert saw(daemon) == [0, 0]


def times(alias: str) -> int:
    found = Wake.objects.using(alias).filter(name="emails").first()
    return found.times if found else 0


def test_every_worker_is_woken(live: Live, server: Server, wakes: str) -> None:
    daemon = live("woken", "--workers", "2", *NO_PULSE, on=server)
    daemon.wait_for("ended", count=2)
    add_row(server)
    daemonkit.wake("emails")
    daemon.wait_for("saw 1 at", count=2, within=15)
    assert daemon.stop() == 0


# Troubles


def test_a_killed_session_loses_no_wake_up(live: Live, server: Server, wakes: str) -> None:
    daemon = starts(live, *NO_PULSE, on=server)
    for count in range(1, 4):
        add_row(server)
        server.kill_sessions()
        daemonkit.wake("emails")
        daemon.wait_for(f"saw {count} at", within=20)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.output


def test_a_restart_of_the_server_loses_no_wake_up(live: Live, server: Server, wakes: str) -> None:
    daemon = starts(live, *NO_PULSE, on=server)
    add_row(server)
    server.stop()
    daemonkit.wake("emails")  # while it is away
    server.start()
    daemon.wait_for("saw 1 at", within=40)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.output


def test_behind_pgbouncer_the_counter_wakes_and_listen_may_name_a_direct_alias(
    live: Live, postgres: PostgreSQL, alias: MakeAlias
) -> None:
    if reason := PgBouncer.why_missing():
        pytest.skip(reason)
    with woken_through(alias(postgres)), PgBouncer(postgres) as bouncer:
        url = postgres.url_through(bouncer.port)
        deaf = starts(live, "--pulse", "300ms", on=url)
        direct = starts(live, *NO_PULSE, on=url, DIRECT_URL=postgres.url,
                        DAEMONKIT=json.dumps({"listen": "direct"}))  # fmt: skip
        add_row(postgres)
        daemonkit.wake("emails")
        for daemon in (deaf, direct):
            daemon.wait_for("saw 1 at", within=10)
            assert daemon.stop() == 0


def test_a_listening_daemon_that_is_frozen_out_of_its_session_ends_in_time(
    live: Live, server: Server, wakes: str
) -> None:
    daemon = starts(live, "--pulse", "100ms", on=server)
    server.freeze()
    began = time.monotonic()
    code = daemon.stop(within=15)
    server.thaw()
    assert code == 0
    assert time.monotonic() - began < 10


# When it is sent


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_inside_atomic_it_is_sent_after_the_commit(wakes: str, end: str) -> None:
    with transaction.atomic(using=wakes):
        daemonkit.wake("emails")
        sender._sender.flush(1)
        assert times(wakes) == 0
        transaction.set_rollback(end == "rollback", using=wakes)
    sender._sender.flush(5)
    assert times(wakes) == (end == "commit")


def test_at_most_one_is_sent_in_50_ms_and_the_last_one_always(wakes: str) -> None:
    began = time.monotonic()
    calls = 0
    while time.monotonic() - began < 0.5:
        daemonkit.wake("emails")
        calls += 1
    sent_by_then = times(wakes)
    eventually(lambda: times(wakes) > sent_by_then or not sender._sender._asked)
    sender._sender.flush(5)
    seconds = time.monotonic() - began
    assert calls > 100
    assert 2 <= times(wakes) <= seconds / sender.SHORTEST_INTERVAL + 2


class SlowSender(Sender):
    """Notes what it sends."""

    def __init__(self, fail: int = 0) -> None:
        super().__init__()
        self.sent: list[tuple[str, float]] = []
        self.fail = fail

    def _send(self, name: str) -> Exception | None:
        if self.fail:
            self.fail -= 1
            return RuntimeError("away")
        self.sent.append((name, time.monotonic()))
        return None


def test_a_wake_up_that_failed_is_sent_again() -> None:
    slow = SlowSender(fail=3)
    slow.put("emails")
    eventually(lambda: [name for name, _ in slow.sent] == ["emails"])


def test_each_name_has_an_interval_of_its_own() -> None:
    slow = SlowSender()
    for _ in range(3):
        for name in ("a", "b"):
            slow.put(name)
    eventually(lambda: len(slow.sent) >= 2 and not slow._asked)
    for name in ("a", "b"):
        at = [moment for sent, moment in slow.sent if sent == name]
        gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert all(gap >= sender.SHORTEST_INTERVAL for gap in gaps)


def test_the_last_wake_up_of_a_process_is_sent_before_it_ends(server: Server, wakes: str) -> None:
    ran = run_python(
        """
        import django
        django.setup()
        import daemonkit
        for _ in range(3):
            daemonkit.wake("emails")
        """,
        DJANGO_SETTINGS_MODULE="tests.lives.settings",
        DATABASE_URL=server.url,
        PYTHONPATH=f"{ROOT}:{ROOT / 'sample_site'}",
    )
    assert ran.returncode == 0, ran.stderr
    assert times(wakes) >= 1


def test_a_forked_child_sends_for_itself(wakes: str) -> None:
    daemonkit.wake("emails")
    sender._sender.flush(5)
    eventually(lambda: times(wakes) == 1)
    eventually(lambda: "daemonkit-session" not in {each.name for each in threading.enumerate()})
    child = os.fork()
    if child == 0:
        daemonkit.wake("emails")
        sender._sender.flush(10)
        os._exit(1 if sender._sender._asked or sender._sender._is_sending else 0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert times(wakes) == 2


def test_without_the_table_it_logs_and_raises_nothing(
    server: Server, alias: MakeAlias, caplog: pytest.LogCaptureFixture
) -> None:
    with woken_through(alias(server), has_table=False):
        daemonkit.wake("emails")
        eventually(lambda: "was not sent: there is no table daemonkit_wake" in caplog.text)


@pytest.mark.parametrize("name", ["", "x" * 201, None, 7])
def test_a_name_that_is_none_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="wake\\(\\) takes a name of 1 to 200 characters"):
        daemonkit.wake(name)  # type: ignore[arg-type]


# Bad input


def test_wake_on_without_the_migration_ends_with_78(live: Live, server: Server) -> None:
    daemon = live("woken", on=server, WAIT="no")
    assert daemon.wait() == Exit.MISCONFIGURED
    assert "has wake_on and needs the table daemonkit_wake: run `manage.py migrate" in daemon.stderr
    assert "Traceback" not in daemon.stderr


def test_wake_on_that_is_no_name_is_refused_with_2() -> None:
    class Command(BaseDaemonCommand):
        schedule = Every(1)
        wake_on = "x" * 201

        def tick(self) -> None: ...

    with pytest.raises(CommandError, match="wake_on takes a name") as refused:
        call_command(Command(), clock=FakeClock(), max_ticks=1)
    assert refused.value.returncode == Exit.USAGE


# self.wake()


class Counting(BaseDaemonCommand):
    """Counts its ticks. The first one is followed by a wake-up from another thread."""

    schedule = Poll(idle=3600)

    def __init__(self) -> None:
        super().__init__()
        self.ticks: list[float] = []

    def tick(self) -> None:
        self.ticks.append(time.monotonic())
        if len(self.ticks) == 1:
            threading.Timer(0.1, self.wake).start()


def test_wake_from_another_thread_ends_the_loops_wait() -> None:
    command = Counting()
    call_command(command, max_ticks=2)
    assert command.ticks[1] - command.ticks[0] < 5


def test_wake_in_a_tick_is_followed_by_another_tick() -> None:
    class Command(Counting):
        def tick(self) -> None:
            self.ticks.append(time.monotonic())
            self.wake()

    command = Command()
    call_command(command, max_ticks=3)
    assert len(command.ticks) == 3


def test_wake_does_not_shorten_the_back_off_of_a_failure() -> None:
    clock = FakeClock()

    class Command(Counting):
        backoff = daemonkit.Backoff(first=100, cap=100)

        def tick(self) -> None:
            self.ticks.append(clock.moment().monotonic)
            self.wake()
            if len(self.ticks) == 1:
                raise ValueError

    command = Command()
    call_command(command, clock=clock, max_ticks=3, raise_errors=False)
    assert command.ticks[1] >= 50
    assert command.ticks[2] == command.ticks[1]


def test_after_a_wake_up_every_goes_on_as_before() -> None:
    clock = FakeClock()

    class Command(Counting):
        schedule = Every(30)  # type: ignore[assignment]

        def tick(self) -> None:
            self.ticks.append(clock.moment().monotonic)
            if len(self.ticks) == 1:
                self.wake()

    command = Command()
    call_command(command, clock=clock, max_ticks=4)
    assert command.ticks == [0, 0, 30, 60]


def test_wake_is_refused_in_a_daemon_with_jobs() -> None:
    class Command(BaseDaemonCommand):
        ledger = False

        @daemonkit.job(Every(1))
        def work(self) -> None:
            self.wake()

    with pytest.raises(RuntimeError, match="wake\\(\\) does not wake jobs"):
        call_command(Command(), clock=FakeClock(), max_ticks=1)


# self.wait_for() and Poll(idle=0)


def test_wait_for_returns_what_can_be_read_and_ends_when_told_to_stop(live: Live) -> None:
    daemon = live("waiting", on="sqlite://:memory:")
    daemon.wait_for("ready True")
    daemon.wait_for("listens")
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5


class Reading(BaseDaemonCommand):
    schedule = Poll(idle=0)
    work: Callable[[BaseDaemonCommand], object]

    def tick(self) -> None:
        self.found = type(self).work(self)


def read_once(work: Callable[[BaseDaemonCommand], object]) -> object:
    class Command(Reading):
        pass

    Command.work = work  # type: ignore[assignment]
    command = Command()
    call_command(command, max_ticks=1)
    return command.found


def test_wait_for_takes_descriptors_and_several_and_returns_after_its_time() -> None:
    reader, writer = os.pipe()
    other, _ = quiet = os.pipe()
    try:
        assert read_once(lambda each: each.wait_for([reader, other], 0.01)) == []
        os.write(writer, b".")
        assert read_once(lambda each: each.wait_for(reader, 60)) == [reader]
        assert read_once(lambda each: each.wait_for([reader, other], 60)) == [reader]
    finally:
        for each in (reader, writer, *quiet):
            os.close(each)


def test_wait_for_sees_what_tls_has_already_decrypted() -> None:
    reader, writer = os.pipe()

    class Tls:
        def fileno(self) -> int:
            return reader

        def pending(self) -> int:
            return 5

    source = Tls()
    try:
        assert read_once(lambda each: each.wait_for(source, 60)) == [source]
    finally:
        os.close(reader)
        os.close(writer)


def test_wake_ends_wait_for() -> None:
    reader, writer = os.pipe()

    def work(daemon: BaseDaemonCommand) -> object:
        threading.Timer(0.1, daemon.wake).start()
        return daemon.wait_for(reader, 60)

    try:
        assert read_once(work) == []
    finally:
        os.close(reader)
        os.close(writer)


def test_a_closed_descriptor_is_an_error() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    with pytest.raises(OSError, match="wait_for"):
        read_once(lambda each: each.wait_for(reader, 60))


def test_ticks_that_neither_find_nor_wait_pause_for_50_ms_with_one_warning(live: Live) -> None:
    daemon = live("waiting", "--spin", "--max-ticks", "30", on="sqlite://:memory:")
    began = time.monotonic()
    assert daemon.wait(30) == 0
    assert time.monotonic() - began >= 0.9  # 19 pauses or more
    assert len(re.findall("10 ticks in a row found nothing", daemon.stderr)) == 1


def test_ticks_that_find_something_never_pause() -> None:
    clock = FakeClock()

    class Command(Reading):
        def tick(self) -> bool:  # type: ignore[override]
            return True

    call_command(Command(), clock=clock, max_ticks=1000)
    assert clock.waits == []
