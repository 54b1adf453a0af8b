"""The messages to systemd, on a real socket."""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from daemonkit import BaseDaemonCommand, Poll, signals
from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.listeners.status_line import Line
from daemonkit.listeners.systemd import Channel, Notifier
from daemonkit.testing import NotifySocket
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.projects import Project


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"@{uuid.uuid4()}" if request.param == "abstract" else str(tmp_path / "notify")


@pytest.fixture
def systemd(notify_socket: NotifySocket) -> NotifySocket:
    """systemd's end of the socket, for daemons in this process and in other processes."""
    return notify_socket


class Quick(BaseDaemonCommand):
    schedule = Poll(idle=60)
    pulse, tick_timeout, stop_timeout = 4.0, 100.0, 7.0

    def tick(self) -> bool:
        return True


# The channel


def test_messages_are_sent_to_both_kinds_of_sockets(address: str) -> None:
    with NotifySocket(address) as systemd:
        channel = Channel(address)
        assert channel.send("READY=1", "STATUS=läuft")
        assert systemd.messages() == [["READY=1", "STATUS=läuft"]]
        channel.close()


@pytest.mark.parametrize(
    "address", ["/nowhere/at/all", "@gone", "vsock:2:1234", "/x" * 200, "", "@"]
)
def test_a_missing_socket_raises_no_exception(address: str) -> None:
    channel = Channel(address)
    assert not channel.send("READY=1")
    channel.close()
    assert not channel.send("READY=1")


def test_a_full_socket_neither_blocks_nor_raises(systemd: NotifySocket) -> None:
    channel = Channel(systemd.address)
    started = time.monotonic()
    sent = sum(channel.send("STATUS=" + "x" * 1000) for _ in range(2000))
    assert time.monotonic() - started < 5
    assert 0 < sent < 2000
    systemd.messages()
    assert channel.send("READY=1")
    channel.close()


def test_a_forked_child_sends_nothing(systemd: NotifySocket) -> None:
    channel = Channel(systemd.address)
    child = os.fork()
    if child == 0:
        os._exit(1 if channel.send("STOPPING=1") else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert systemd.messages() == []
    channel.close()


# A life


def test_a_life_in_the_words_of_the_protocol(systemd: NotifySocket) -> None:
    call_command(Quick(), max_ticks=2)
    heard = systemd.messages()
    assert heard[0] == ["STATUS=starts"]
    (ready,) = [message for message in heard if "READY=1" in message]
    assert "WATCHDOG_USEC=17000000" in ready  # three pulses of 4 s, and 5
    assert systemd.lines().count("WATCHDOG=1") == ready.count("WATCHDOG=1") == 1
    assert heard.index(ready) == 1
    assert heard[-1] == ["STOPPING=1", "STATUS=stopped: max_ticks of 2 reached"]


def test_the_environment_variable_is_removed_when_a_life_begins_and_not_before(
    systemd: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web server of the same project loads the same apps, and may need it."""
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    assert os.environ["NOTIFY_SOCKET"]
    call_command(Quick(), max_ticks=1)
    assert "NOTIFY_SOCKET" not in os.environ
    assert "WATCHDOG_USEC" not in os.environ


def test_without_systemd_no_listener_is_connected() -> None:
    class Curious(Quick):
        def tick(self) -> bool:
            receivers.append(signals.daemon_pulse.has_listeners(Curious))
            return True

    receivers: list[bool] = []
    call_command(Curious(), max_ticks=1)
    assert receivers == [False]


def test_after_a_life_no_listener_is_connected(systemd: NotifySocket) -> None:
    call_command(Quick(), max_ticks=1)
    assert not signals.daemon_pulse.has_listeners(Quick)
    assert not signals.iteration_finished.has_listeners(Quick)


def test_lines_that_must_arrive_are_sent_again_when_the_socket_was_full(
    systemd: NotifySocket,
) -> None:
    filler = Channel(systemd.address)
    while filler.send("x" * 4000):
        pass

    class Late(Quick):
        def tick(self) -> bool:
            systemd.messages()
            return True

    call_command(Late(), max_ticks=2)
    filler.close()
    (ready,) = [message for message in systemd.messages() if "READY=1" in message]
    assert "WATCHDOG_USEC=17000000" in ready


def test_a_fast_loop_sends_a_few_messages_a_second(systemd: NotifySocket) -> None:
    started = time.monotonic()
    call_command(Quick(), max_ticks=5000)
    seconds = time.monotonic() - started
    assert len(systemd.messages()) < 12 + 3 * seconds


def test_the_last_status_of_a_fast_loop_is_that_it_waits(systemd: NotifySocket) -> None:
    class Emptied(Quick):
        left = 3000

        def tick(self) -> bool:
            self.left -= 1
            return self.left > 0

    call_command(Emptied(), max_seconds=1.5)
    statuses = systemd.statuses()
    assert statuses[-2].startswith("waits; next at ")
    assert "tick 3000 took" in statuses[-2]


def test_a_loop_that_is_woken_often_does_not_send_each_wait(
    systemd: NotifySocket,
) -> None:
    notifier = Notifier(Quick(), Channel(systemd.address))
    due = Moment(time.monotonic() + 60, time.time() + 60)
    for number in range(1000):
        notifier.line.ended(iteration(number=number))
        notifier.waiting(due=due)
    assert len(systemd.messages()) < 10
    notifier.channel.close()


def test_an_idle_loop_sends_its_pulse_during_a_long_wait(
    systemd: NotifySocket, project: Project
) -> None:
    project.command("daily", "class Command(BaseDaemonCommand):\n    schedule = Cron('0 3 * * *')\n"
                             "    pulse = 0.3\n\n    def tick(self): ...")  # fmt: skip
    daemon = project.manage("run_daemon", "daily", NOTIFY_SOCKET=systemd.address)
    systemd.wait_for("WATCHDOG=1", count=5)
    assert re.fullmatch(r"waits; next at (\d{4}-\d\d-\d\d )?03:00:00 UTC", systemd.statuses()[-1])
    assert daemon.stop() == 0


def test_stopping_extends_systemds_timeout_and_so_does_each_beat(
    systemd: NotifySocket, project: Project
) -> None:
    project.command(
        "draining",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)
            stop_timeout = 3

            def tick(self):
                print("ticking", flush=True)
                for number in range(25):
                    self.stopping or self.wait(10)
                    __import__("time").sleep(0.1)
                    self.beat(f"{number} of 25")
        """,
    )
    daemon = project.manage("run_daemon", "draining", NOTIFY_SOCKET=systemd.address)
    daemon.wait_for("ticking", within=20)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    (stopping,) = [message for message in systemd.messages() if "STOPPING=1" in message]
    assert "EXTEND_TIMEOUT_USEC=13000000" in stopping
    assert systemd.lines().count("EXTEND_TIMEOUT_USEC=13000000") >= 3
    assert any(
        re.fullmatch(r"stops \(SIGTERM\), waits for tick 1 runs since \S+ UTC: \d+ of 25", status)
        for status in systemd.statuses()
    )


def test_the_jobs_of_a_scheduled_daemon_are_named(systemd: NotifySocket, project: Project) -> None:
    project.command(
        "planned",
        """
        import time
        from daemonkit import job

        class Command(BaseDaemonCommand):
            @job(Every(seconds=30))
            def refresh(self):
                time.sleep(1)
                return "9 rows"

            @job(Cron("0 3 * * *"))
            def report(self): ...
        """,
    )
    daemon = project.manage("run_daemon", "planned", "--pulse", "1", NOTIFY_SOCKET=systemd.address)
    at = r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC"
    for pattern in (
        rf"refresh 1 runs since {at}.*",
        rf"waits; next at {at}; refresh 1 took .*: 9 rows",
    ):
        eventually(
            lambda pattern=pattern: any(re.fullmatch(pattern, each) for each in systemd.statuses()),
            20,
            f"{pattern} in {systemd.statuses()}",
        )
    assert daemon.stop() == 0


def test_a_reload_is_announced_with_its_moment_and_ready_follows_from_the_new_image(
    systemd: NotifySocket, project: Project
) -> None:
    project.command(
        "speaker",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                print("spoken", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", "speaker", NOTIFY_SOCKET=systemd.address)
    daemon.wait_for("spoken", within=20)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    daemon.signal(signal.SIGHUP)
    systemd.wait_for("READY=1", count=2)
    lines = systemd.lines()
    moment = int(next(line for line in lines if line.startswith("MONOTONIC_USEC"))[15:])
    assert before <= moment <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    (reloading,) = [message for message in systemd.messages() if "RELOADING=1" in message]
    assert f"MONOTONIC_USEC={moment}" in reloading
    assert "STOPPING=1" not in lines
    assert lines.index("RELOADING=1") < lines.index("STATUS=re-executes itself")
    assert lines.index("STATUS=re-executes itself") < len(lines) - lines[::-1].index("READY=1")
    assert daemon.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_is_ready_when_it_begins_to_wait_for_a_database(
    systemd: NotifySocket, project: Project, mariadb: Server, workers: str
) -> None:
    project.command(
        "needy",
        """
        from django.db import connection

        class Command(BaseDaemonCommand):
            schedule = Poll(idle=60)
            pulse = 0.3

            def lifespan(self):
                connection.ensure_connection()
                return super().lifespan()

            def tick(self): ...
        """,
    )
    mariadb.stop()
    arguments = ["needy", "--workers", workers]
    daemon = project.manage(
        "run_daemon", *arguments, NOTIFY_SOCKET=systemd.address, DATABASE_URL=mariadb.url
    )
    systemd.wait_for("READY=1")
    waits = "waits for the database"
    eventually(lambda: [text for text in systemd.statuses() if waits in text], 20)
    first = next(message for message in systemd.messages() if "READY=1" in message)
    assert "WATCHDOG_USEC=95900000" in first  # one try to open may take 90 s
    mariadb.start()
    systemd.wait_for("WATCHDOG_USEC=5900000")
    assert daemon.stop() == 0
    assert systemd.lines().count("READY=1") == 1


@pytest.mark.parametrize(
    ("tick_timeout", "raised"), [("60s", "WATCHDOG_USEC=65400000"), ("none", "WATCHDOG_USEC=0")]
)
def test_a_tick_that_lasts_a_pulse_has_its_own_deadline_and_the_wait_after_it_a_few_pulses(
    systemd: NotifySocket, project: Project, tmp_path: Path, tick_timeout: str, raised: str
) -> None:
    gate = tmp_path / "gate"
    project.command(
        "lasting",
        f"""
        import os, time

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)
            pulse = 0.2

            def tick(self):
                while not os.path.exists({str(gate)!r}):
                    time.sleep(0.01)
        """,
    )
    daemon = project.manage(
        "run_daemon", "lasting", "--tick-timeout", tick_timeout, NOTIFY_SOCKET=systemd.address
    )
    systemd.wait_for(raised)
    gate.touch()
    systemd.wait_for("WATCHDOG_USEC=5600000", count=2)
    assert daemon.stop() == 0
    intervals = [line for line in systemd.lines() if line.startswith("WATCHDOG_USEC")]
    assert intervals == ["WATCHDOG_USEC=5600000", raised, "WATCHDOG_USEC=5600000"]


def test_a_job_that_lasts_a_pulse_does_not_change_the_watchdogs_interval(
    systemd: NotifySocket,
) -> None:
    notifier = Notifier(Quick(), Channel(systemd.address))
    notifier.prolonged(job="report")
    notifier.prolonged(job="")
    intervals = [line for line in systemd.lines() if line.startswith("WATCHDOG_USEC")]
    assert len(intervals) == 1
    notifier.close()


def test_a_reload_whose_code_does_not_load_is_reported_as_failed(systemd: NotifySocket) -> None:
    notifier = Notifier(Quick(), Channel(systemd.address))
    notifier.ready()
    notifier.reload_requested()
    notifier.reload_failed(reason="SyntaxError: invalid syntax")
    last = systemd.messages()[-1]
    assert {"READY=1", "ERRNO=8", "WATCHDOG_USEC=17000000"} <= set(last)
    assert "goes on with the old code: SyntaxError: invalid syntax" in systemd.statuses()[-1]
    notifier.reload_requested()
    notifier.reloading(reason="SIGHUP")
    assert systemd.lines().count("RELOADING=1") == systemd.lines().count("ERRNO=0") == 2
    assert "the old code" not in systemd.statuses()[-1]
    notifier.close()


def test_an_overdue_tick_sends_nothing_to_the_watchdog(
    systemd: NotifySocket, project: Project
) -> None:
    project.command(
        "stuck",
        """
        import time

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)
            pulse, tick_timeout = 2, 0.5

            def tick(self):
                time.sleep(1)
                while True:
                    self.beat("too late")
                    time.sleep(0.1)
        """,
    )
    daemon = project.manage("run_daemon", "stuck", NOTIFY_SOCKET=systemd.address)
    assert daemon.wait(20) == 70
    lines = systemd.lines()
    overdue = next(n for n, line in enumerate(lines) if "past its tick_timeout of 0.5 s" in line)
    assert any("too late" in line for line in lines[overdue:])
    assert "WATCHDOG=1" not in lines[overdue:]


# The status line


def iteration(**changes: Any) -> Iteration:
    now = Moment(time.monotonic(), time.time())
    return Iteration(7, now, now, 0.25)._replace(**changes)


def test_the_status_line_shows_the_failure_and_its_count() -> None:
    line = Line()
    line.doing = "waits"
    line.ended(iteration(error=ValueError("no\nsuch thing"), failures=3))
    assert str(line) == "waits; tick 7 failed after 250 ms, 3 in a row: ValueError: no such thing"


def test_the_status_line_names_the_running_jobs_and_the_last_one_that_ended() -> None:
    line = Line()
    line.begun("report", 1)
    line.begun("refresh", 12)
    line.ended(iteration(job="refresh", number=12, seconds=130, result="9 rows"))
    line.due = Moment(0, time.mktime((2031, 1, 1, 3, 0, 0, 0, 0, 0)))
    assert re.fullmatch(
        r"report 1 runs since \S+ \S+; next at 2031-01-01 03:00:00 \S+; "
        r"refresh 12 took 2 min: 9 rows",
        str(line),
    )


def test_a_message_is_shown_with_its_job_until_the_job_ends() -> None:
    line = Line()
    for name in ("alpha", "zulu"):
        line.begun(name, 1)
        line.messages[name] = f"{name} is halfway"
    assert re.fullmatch(
        r"alpha 1 runs since .*: alpha is halfway; zulu 1 runs since .*: zulu is halfway", str(line)
    )
    line.ended(iteration(job="zulu"))
    assert str(line).startswith("alpha 1 runs since")
    assert "alpha is halfway" in str(line)
    assert "zulu is halfway" not in str(line)


@pytest.mark.parametrize(("ended", "signs"), [("zulu", 0), ("alpha", 1)])
def test_there_is_no_sign_of_life_until_the_job_that_is_overdue_has_ended(
    systemd: NotifySocket, ended: str, signs: int
) -> None:
    notifier = Notifier(Quick(), Channel(systemd.address))
    notifier.overdue(seconds=2, job="alpha")
    notifier.finished(iteration(job=ended))
    notifier.pulse()
    assert systemd.lines().count("WATCHDOG=1") == signs
    notifier.close()


def test_the_status_lines_of_a_standby_and_of_a_supervisor() -> None:
    line = Line()
    line.standing_by = "stands by: host-a leads"
    line.due = Moment(0, time.time())
    assert str(line) == "stands by: host-a leads"
    line.override = "4 of 4 workers"
    assert str(line) == "4 of 4 workers"
    line.ending = "stops (SIGTERM)"
    assert str(line) == "stops (SIGTERM)"


def test_the_status_line_shows_text_and_numbers_and_makes_no_query() -> None:
    class Rows:
        def __bool__(self) -> bool:
            raise AssertionError("a QuerySet would query")

        __str__ = __repr__ = __bool__  # type: ignore[assignment]

    line = Line()
    line.doing = "waits"
    for result, shown in ((Rows(), ""), (True, ""), (0, ""), (17, ": 17"), ("9 of 9", ": 9 of 9")):
        line.ended(iteration(result=result))
        assert str(line) == f"waits; tick 7 took 250 ms{shown}"


def test_an_error_whose_text_fails_does_not_silence_the_watchdog(systemd: NotifySocket) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Failing(Quick):
        def tick(self) -> bool:
            raise AssertionError

    daemon = Failing()
    notifier = Notifier(daemon, Channel(systemd.address))
    notifier.line.ended(iteration(error=Unspeakable(), failures=1))
    notifier.pulse()
    assert systemd.messages()[0][0] == "WATCHDOG=1"
    notifier.channel.close()


def test_the_status_is_a_single_line_of_limited_length() -> None:
    line = Line()
    line.doing = "x\n" * 1000
    assert "\n" not in str(line)
    assert len(str(line)) == 300
