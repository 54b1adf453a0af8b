"""Lives whose database goes away, refuses them, hangs or comes back: real servers and processes."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from daemonkit.testing import NotifySocket
from lab.processes import Daemon
from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.processes import Live
from tests.kit.projects import Project
from tests.kit.servers import MakeProxy
from tests.kit.sessions import notes


def ticks(daemon: Daemon) -> int:
    return sum(line.startswith("session ") for line in daemon.lines)


def ticks_on(daemon: Daemon, more: int = 3) -> None:
    before = ticks(daemon)
    eventually(lambda: ticks(daemon) >= before + more, within=15)


# Away


def test_a_database_that_is_away_at_start_is_waited_for(live: Live, server: Server) -> None:
    server.stop()
    daemon = live("needy", on=server)
    daemon.wait_for("waits for the database", count=2, within=20)
    server.start()
    daemon.wait_for("opened on", within=15)
    ticks_on(daemon)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.output


def test_system_checks_wait_for_the_database_too(live: Live, mariadb: Server) -> None:
    """Django 6.1 connects to MySQL in its system checks; a plain command dies there."""
    mariadb.stop()
    daemon = live("steady", "--every", "100ms", on=mariadb)
    daemon.wait_for(re.compile("waits for the database|tick 1 failed"), within=20)
    mariadb.start()
    ticks_on(daemon)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.output


def test_sigterm_ends_the_wait_for_a_database(live: Live, server: Server) -> None:
    server.stop()
    daemon = live("needy", on=server)
    daemon.wait_for("waits for the database", within=20)
    assert daemon.stop(within=5) == 0


def test_a_database_that_goes_away_later_does_not_end_the_daemon(
    live: Live, server: Server
) -> None:
    daemon = live("hasty", "--max-failures", "2", on=server)
    ticks_on(daemon)
    server.stop()
    daemon.wait_for("database unreachable", count=4, within=20)
    server.start()
    ticks_on(daemon)
    assert daemon.stop() == 0


def test_a_daemon_goes_on_when_its_killed_server_is_back(live: Live, server: Server) -> None:
    daemon = live("hasty", on=server, CONN_MAX_AGE="none")
    ticks_on(daemon)
    server.kill()
    server.start()
    ticks_on(daemon)
    assert daemon.stop() == 0


@pytest.mark.parametrize("max_age", ["0", "300", "none"])
def test_sessions_killed_between_ticks_are_not_noticed(
    live: Live, server: Server, max_age: str
) -> None:
    daemon = live("hasty", on=server, CONN_MAX_AGE=max_age)
    ticks_on(daemon)
    for _ in range(5):
        for row in server.session_rows():
            if not re.search("INSERT|SELECT|SET|COMMIT", row.query or ""):
                server.kill_session(row.id)
        ticks_on(daemon, 1)
    assert daemon.stop() == 0
    assert set(notes(server)) == {"tick"}


def test_a_daemon_with_conn_max_age_0_holds_no_session_while_it_waits(
    live: Live, server: Server
) -> None:
    daemon = live("steady", "--every", "1h", on=server)
    daemon.wait_for("session")
    eventually(lambda: not server.sessions())
    assert daemon.stop() == 0


# Refused


def refused(server: Server) -> str:
    return re.sub(":[^:/@]+@", ":wrong@", server.url)


def test_mysql_that_refuses_the_password_for_30_seconds_ends_it_with_78(
    live: Live, mariadb: MariaDB
) -> None:
    daemon = live("needy", on=refused(mariadb))
    daemon.wait_for("1045", within=20)
    assert daemon.is_running
    assert daemon.wait(within=45) == 78
    assert "refused by the database for 30 s" in daemon.stderr
    assert "Traceback" not in daemon.output


def test_a_password_that_is_set_a_moment_later_is_enough(live: Live, mariadb: MariaDB) -> None:
    """A database that is still being set up refuses the password, too."""
    mariadb.execute("CREATE USER late@'%' IDENTIFIED BY 'other'")
    mariadb.execute("GRANT ALL ON daemonkit.* TO late@'%'")
    try:
        url = re.sub("//[^:]+:[^:/@]+@", "//late:secret@", mariadb.url)
        daemon = live("needy", on=url)
        daemon.wait_for("1045", within=20)
        mariadb.execute("ALTER USER late@'%' IDENTIFIED BY 'secret'")
        ticks_on(daemon)
        assert daemon.stop() == 0
    finally:
        mariadb.execute("DROP USER late@'%'")


def test_a_daemon_waits_while_postgresql_refuses_its_password_and_logs_the_refusal(
    live: Live, postgres: PostgreSQL
) -> None:
    daemon = live("needy", on=refused(postgres))
    daemon.wait_for("password authentication failed", count=2, within=20)
    assert daemon.is_running
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.output


# Half-open


@pytest.mark.parametrize("trouble", ["stall", "drop"])
def test_tick_timeout_cuts_a_tick_on_a_half_open_link_and_the_daemon_lives_on(
    live: Live, server: Server, proxy: MakeProxy, trouble: str
) -> None:
    between = proxy(server)
    url = server.url_through(between.port)
    daemon = live("hasty", "--tick-timeout", "1s", on=url, CONN_MAX_AGE="none")
    ticks_on(daemon)
    getattr(between, trouble)()
    daemon.wait_for("past its tick_timeout of 1s", within=15)
    between.resume()
    between.cut()
    ticks_on(daemon)
    assert daemon.stop() == 0
    assert "Its stack:" in daemon.stderr
    assert daemon.stderr.count("past its tick_timeout") <= 2


@pytest.mark.parametrize("command", ["hasty", "transacting"])
def test_a_network_that_stays_silent_fails_ticks_and_ends_no_process(
    live: Live, server: Server, proxy: MakeProxy, command: str
) -> None:
    """connect() has no time limit, and later ticks may hang in it, too."""
    between = proxy(server)
    url = server.url_through(between.port)
    arguments = ["--tick-timeout", "500ms", "--pulse", "1s"]
    daemon = live(command, *arguments, on=url, CONN_MAX_AGE="none")
    ticks_on(daemon)
    between.drop()
    daemon.wait_for("past its tick_timeout of 500ms", count=4, within=30)
    between.resume()
    between.cut()
    ticks_on(daemon)
    assert daemon.stop() == 0


def test_a_frozen_server_holds_a_tick_for_its_tick_timeout_only(live: Live, server: Server) -> None:
    arguments = ["--tick-timeout", "1s", "--pulse", "30s"]
    daemon = live("hasty", *arguments, on=server, CONN_MAX_AGE="none")
    ticks_on(daemon)
    server.freeze()
    daemon.wait_for("past its tick_timeout", within=15)
    server.thaw()
    ticks_on(daemon)
    assert daemon.stop() == 0


def test_a_tick_that_does_not_return_when_it_is_cut_ends_the_process_with_70(live: Live) -> None:
    daemon = live("hanging", "--tick-timeout", "300ms", "--pulse", "500ms", on="sqlite://:memory:")
    assert daemon.wait(within=15) == 70
    assert "in tick" in daemon.stderr  # the stack says where
    assert "did not return when it was cut" in daemon.stderr


def test_beat_restarts_tick_timeout(live: Live, server: Server) -> None:
    daemon = live(
        *("slow", "--seconds", "3", "--beats", "--tick-timeout", "1s", "--once"), on=server
    )
    assert daemon.wait(within=20) == 0
    assert notes(server) == ["begun", "done"]


@pytest.mark.parametrize("helper", ["thread", "executor", "pool", "async"])
def test_beat_counts_from_any_thread_that_the_tick_started(
    live: Live, mariadb: Server, helper: str
) -> None:
    arguments = ["--seconds", "3", "--helpers", helper, "--tick-timeout", "2s", "--pulse", "1s"]
    daemon = live("slow", *arguments, "--once", on=mariadb)
    assert daemon.wait(within=20) == 0
    assert "past its tick_timeout" not in daemon.stderr


# Failures


def test_max_failures_in_a_row_end_it_with_75(live: Live) -> None:
    daemon = live("failing", "--max-failures", "3", on="sqlite://:memory:")
    assert daemon.wait() == 75
    assert daemon.stdout.count("tried") == 3
    assert daemon.stderr.count("Traceback") == 1
    assert "failing failed 3 times in a row, the last time with ValueError" in daemon.stderr


def test_a_failed_tick_of_once_ends_it_with_1(live: Live) -> None:
    daemon = live("failing", "--once", on="sqlite://:memory:")
    assert daemon.wait() == 1
    assert "no such price" in daemon.stderr
    assert daemon.stderr.count("Traceback") == 1


def test_sigterm_during_the_back_off_ends_it_with_0(live: Live) -> None:
    daemon = live("failing", on="sqlite://:memory:")
    daemon.wait_for("tried", count=2)
    assert daemon.stop(signal.SIGTERM, within=5) == 0


def test_no_work_is_repeated_when_the_connection_is_lost_in_a_commit(
    live: Live, mariadb: MariaDB, tmp_path: Path
) -> None:
    """The tick is due again at once, as the next tick, with its own work and rows."""
    daemon = live("slow", "--seconds", "1", "--max-ticks", "2", on=mariadb)
    daemon.wait_for("in the middle")
    eventually(lambda: "sleep(1" in str(mariadb.session_rows()).lower())
    mariadb.kill_sessions()
    assert daemon.wait(within=15) == 0
    assert daemon.stdout.count("in the middle") == 2
    assert notes(mariadb) == ["begun", "done"]
    assert "connection lost, outcome unknown" in daemon.stderr


def test_an_on_error_that_hangs_is_cut_at_the_tick_timeout_too(
    project: Project, mariadb: Server
) -> None:
    project.command(
        "failing",
        """
        from django.db import connection


        class Command(BaseDaemonCommand):
            schedule = Every(seconds=0.1)
            tick_timeout, pulse = 0.5, 1.0

            def tick(self):
                raise ValueError("broken")

            def on_error(self, iteration):
                with connection.cursor() as cursor:
                    cursor.execute("SELECT SLEEP(1.5)")
        """,
    )
    daemon = project.manage("run_daemon", "failing", DATABASE_URL=mariadb.url)
    daemon.wait_for("failing tick is past its tick_timeout of 500ms", count=2, within=30)
    daemon.wait_for("failing on_error() failed", within=30)
    assert daemon.stop() == 0


# Statements of our own


def test_a_daemon_that_waits_sends_nothing_to_its_database(
    live: Live, server: Server, proxy: MakeProxy, notify_socket: NotifySocket
) -> None:
    between = proxy(server)
    daemon = live(
        *("steady", "--every", "1h", "--pulse", "50ms"),
        on=server.url_through(between.port),
        CONN_MAX_AGE="none",
        NOTIFY_SOCKET=notify_socket.address,
    )
    daemon.wait_for("session ", within=30)
    notify_socket.wait_for("WATCHDOG=1", count=3)
    sent = between.bytes_from_clients
    notify_socket.wait_for("WATCHDOG=1", count=6)
    assert between.bytes_from_clients == sent > 0
    assert daemon.stop() == 0
