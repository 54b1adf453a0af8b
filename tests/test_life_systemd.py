"""The unit template under a real systemd: the sample site with a real MariaDB, in a container."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab.machines import Machine
from lab.processes import ROOT
from lab.servers import PASSWORD, MariaDB, PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.sessions import notes
from tests.kit.sites import DATABASE, FOLDER, UNITS, Site

pytestmark = pytest.mark.one_python

STEADY = """
class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self):
        note("steady")
        return "one row"
"""


@pytest.fixture(scope="session")
def site(machine: Machine) -> Site:
    site = Site(machine, FOLDER)
    site.lay_out()
    for name in ("daemonkit@.service", "daemonkit.target"):
        machine.write(f"{UNITS}/{name}", (ROOT / "systemd" / name).read_text())
    machine.run("systemctl", "daemon-reload")
    return site


@pytest.fixture
def shop(site: Site, mariadb: MariaDB) -> Iterator[Site]:
    """The site with an empty database on MariaDB. Afterwards all of its units are stopped."""
    mariadb.create_database(DATABASE)
    mariadb.execute(
        "CREATE TABLE entry (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(200))",
        database=DATABASE,
    )
    site.environment(DATABASE_URL=mariadb.url_through(mariadb.port, DATABASE))
    try:
        yield site
    finally:
        site.stop_all()
        mariadb.start()
        mariadb.drop_database(DATABASE)


# Starting


def test_it_is_active_only_when_its_lifespan_is_open(shop: Site) -> None:
    unit = shop.command(
        "opening",
        """
        from contextlib import contextmanager

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            @contextmanager
            def lifespan(self):
                wait_at_gate("opening")
                print("open", flush=True)
                yield

            def tick(self):
                return "well"
        """,
    )
    shop.machine.run("systemctl", "start", "--no-block", unit)
    shop.is_state(unit, "activating")
    shop.open_gate("opening")
    shop.is_state(unit, "active")
    assert "open" in shop.machine.journal(unit)


def test_its_status_is_one_line_that_is_kept_up_to_date(shop: Site, mariadb: Server) -> None:
    unit = shop.command(
        "living",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=4)

            def tick(self):
                self.beat("41 of 90 files")
                time.sleep(2)
                return "90 files"
        """,
    )
    shop.start(unit)

    def says(pattern: str) -> None:
        eventually(lambda: re.fullmatch(pattern, shop.machine.status(unit)), 20, pattern, every=0.1)

    at = r"\d\d:\d\d:\d\d UTC"
    says(rf"tick 1 runs since {at}: 41 of 90 files")
    says(rf"waits; next at {at}; tick 1 took 2\.\d s: 90 files")
    says(rf"tick 2 runs since {at}: 41 of 90 files; tick 1 took 2\.\d s: 90 files")
    shop.machine.run("systemctl", "stop", "--no-block", unit)
    says(rf"stops \(SIGTERM\), waits for tick \d runs since {at}: 41 of 90 files")
    shop.is_state(unit, "inactive")


def test_children_do_not_inherit_the_socket(shop: Site) -> None:
    unit = shop.command(
        "parental",
        """
        import subprocess

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            def tick(self):
                print("child:", subprocess.check_output(["env"], text=True).count("NOTIFY"))
        """,
    )
    shop.start(unit)
    shop.machine.wait_for(unit, "child: 0")


# The watchdog


@pytest.mark.parametrize(
    ("tick_timeout", "expected"), [(1, "Timeout (0:00:01"), (3600, "Watchdog timeout")]
)
def test_a_tick_that_holds_pythons_lock_is_killed_and_restarted(
    shop: Site, tick_timeout: int, expected: str
) -> None:
    """No Python code can run: faulthandler ends it at ``tick_timeout``, or the watchdog earlier."""
    unit = shop.command(
        "stuck",
        f"""
        import re

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)
            pulse, tick_timeout = 0.5, {tick_timeout}

            def tick(self):
                print("stuck", flush=True)
                re.match("(a|aa)+$", "a" * 60 + "b")
        """,
    )
    shop.start(unit)
    eventually(lambda: shop.restarts(unit) >= 1, 60, "it was started again", every=0.2)
    shop.machine.wait_for(unit, expected)


def test_a_daemon_that_is_frozen_while_it_waits_is_killed_within_seconds(shop: Site) -> None:
    """Even if a tick may take an hour."""
    unit = shop.command(
        "frozen",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=600)
            pulse = 0.2

            def tick(self): ...
        """,
    )
    shop.start(unit)
    eventually(lambda: "waits" in shop.machine.status(unit), 20, every=0.1)
    shop.machine.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", unit)
    shop.machine.wait_for(unit, "Watchdog timeout")
    eventually(lambda: shop.restarts(unit) >= 1, 20, "it was started again", every=0.2)


def test_long_ticks_reloads_and_closing_do_not_trigger_the_watchdog(
    shop: Site, mariadb: Server
) -> None:
    """A tick, a tick during a reload, and a lifespan that closes: each longer than the watchdog's
    interval."""
    unit = shop.command(
        "long",
        """
        from contextlib import contextmanager

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=600)
            pulse = 0.2

            @contextmanager
            def lifespan(self):
                yield
                time.sleep(7)
                note("closed")

            def tick(self):
                print("in the middle", flush=True)
                time.sleep(7)
                note("ticked")
        """,
    )
    shop.start(unit)
    shop.machine.wait_for(unit, "in the middle")
    shop.machine.run("systemctl", "kill", "--kill-who=main", "--signal=HUP", unit)
    eventually(lambda: notes(mariadb, DATABASE) == ["ticked", "closed", "ticked"], 60, every=0.2)
    shop.machine.run("systemctl", "stop", unit)
    assert notes(mariadb, DATABASE) == ["ticked", "closed", "ticked", "closed"]
    assert "Watchdog timeout" not in shop.machine.journal(unit)
    assert shop.machine.show(unit, "Result") == "success"


def test_a_slow_tick_that_beats_is_not_killed(shop: Site, mariadb: Server) -> None:
    unit = shop.command(
        "beating",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)
            pulse, tick_timeout = 0.5, 1

            def tick(self):
                with transaction.atomic():
                    for number in range(30):
                        time.sleep(0.3)
                        self.beat(f"{number} of 30")
                    note("beaten")
        """,
    )
    shop.start(unit)
    eventually(lambda: notes(mariadb, DATABASE) == ["beaten"], 30, every=0.2)
    assert shop.restarts(unit) == 0
    assert "Watchdog timeout" not in shop.machine.journal(unit)
    assert int(shop.machine.show(unit, "WatchdogUSec") != "0") == 1


def test_a_tick_past_its_tick_timeout_ends_the_process_before_the_watchdog_does(shop: Site) -> None:
    unit = shop.command(
        "overdue",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)
            pulse, tick_timeout = 0.5, 1

            def tick(self):
                while True:
                    time.sleep(0.1)
        """,
    )
    shop.start(unit)
    eventually(lambda: shop.restarts(unit) >= 1, 30, "it was started again", every=0.2)
    journal = shop.machine.journal(unit)
    assert "past its tick_timeout of 1s" in journal
    assert "status=70" in journal
    assert "Watchdog timeout" not in journal


# Stopping


def test_stop_during_a_tick_lets_it_commit(shop: Site, mariadb: Server) -> None:
    unit = shop.command(
        "slow",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            def tick(self):
                with transaction.atomic():
                    note("begun")
                    print("in the middle", flush=True)
                    wait_at_gate("slow")
                    note("done")
        """,
    )
    shop.start(unit)
    shop.machine.wait_for(unit, "in the middle")
    shop.machine.run("systemctl", "stop", "--no-block", unit)
    shop.is_state(unit, "deactivating")
    shop.open_gate("slow")
    shop.is_state(unit, "inactive")
    assert notes(mariadb, DATABASE) == ["begun", "done"]
    assert shop.machine.show(unit, "Result") == "success"


@pytest.mark.parametrize(("stop_timeout", "beats"), [(20, False), (3, True)])
def test_a_drain_longer_than_timeoutstopsec_is_not_killed(
    shop: Site, mariadb: Server, stop_timeout: int, beats: bool
) -> None:
    """It extends systemd's timeout: by its ``stop_timeout``, and again with each beat."""
    unit = shop.command(
        "draining",
        f"""
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)
            stop_timeout = {stop_timeout}

            def tick(self):
                with transaction.atomic():
                    print("in the middle", flush=True)
                    for number in range(80 if {beats} else 30):
                        time.sleep(0.2)
                        if {beats}:
                            self.beat(f"{{number}} of 80")
                    note("drained")
        """,
    )
    shop.drop_in(unit, "[Service]\nTimeoutStopSec=2\n")
    shop.start(unit)
    shop.machine.wait_for(unit, "in the middle")
    shop.machine.run("systemctl", "stop", unit)
    assert notes(mariadb, DATABASE) == ["drained"]
    assert shop.machine.show(unit, "Result") == "success"


# Limits


@pytest.mark.parametrize("workers", [1, 2])
def test_a_daemon_that_reaches_a_limit_of_its_class_is_restarted_without_a_failure(
    shop: Site, mariadb: Server, workers: int
) -> None:
    unit = shop.command(
        "limited",
        f"""
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=0.1)
            max_ticks = 3
            workers = {workers}
            per_worker = True

            def tick(self):
                note("ticked")
        """,
    )
    shop.drop_in(unit, "[Service]\nRestartSec=100ms\n")
    before = shop.machine.journal(unit)  # of the same unit in an earlier test
    shop.start(unit)
    eventually(lambda: len(notes(mariadb, DATABASE)) >= 3 * 3 * workers, 40, every=0.2)
    assert "Failed with result" not in shop.machine.journal(unit).removeprefix(before)
    if workers == 1:
        assert shop.restarts(unit) >= 2
        again = r"started \d+ times within the hour"
        eventually(lambda: re.search(again, shop.machine.status(unit)), 20, every=0.05)
        eventually(lambda: re.search(rf"\({again}\)", shop.machine.journal(unit)), 20)
    else:
        assert shop.restarts(unit) == 0


# Reloading


def says(word: str) -> str:
    return f"""
    class Command(BaseDaemonCommand):
        schedule = Every(seconds=60)

        def tick(self):
            note("{word}")
            print("{word}", flush=True)
    """


def test_reload_keeps_the_pid_and_loads_new_code(shop: Site, mariadb: Server) -> None:
    unit = shop.command("speaker", says("before"))
    shop.start(unit)
    shop.machine.wait_for(unit, "before")
    pid = shop.machine.pid(unit)
    shop.command("speaker", says("after, and of another length"))
    shop.machine.run("systemctl", "reload", unit)
    shop.machine.wait_for(unit, "after, and of another length")
    assert shop.machine.pid(unit) == pid
    assert shop.restarts(unit) == 0
    shop.is_state(unit, "active")
    eventually(lambda: "next at" in shop.machine.status(unit), 10)


def test_two_reloads_within_100_ms_are_survived(shop: Site) -> None:
    unit = shop.command("hurried", says("spoken"))
    shop.start(unit)
    shop.machine.wait_for(unit, "spoken")
    pid = shop.machine.pid(unit)
    shop.command("hurried", says("spoken again, and longer"))
    shop.machine.sh(f"systemctl reload {unit}; sleep 0.05; systemctl reload {unit}")
    shop.machine.wait_for(unit, "spoken again, and longer")
    shop.is_state(unit, "active")
    assert (shop.machine.pid(unit), shop.restarts(unit)) == (pid, 0)


def test_a_reload_to_code_that_does_not_compile_fails_and_is_reported(shop: Site) -> None:
    unit = shop.command("broken", says("spoken"))
    shop.start(unit)
    shop.machine.wait_for(unit, "spoken")
    pid = shop.machine.pid(unit)
    shop.command("broken", "class Command(BaseDaemonCommand:")
    shop.machine.run("systemctl", "reload", unit, check=False)
    shop.machine.wait_for(unit, "broken goes on with the old code")
    eventually(lambda: "goes on with the old code" in shop.machine.status(unit), 20)
    shop.is_state(unit, "active")
    assert (shop.machine.pid(unit), shop.restarts(unit)) == (pid, 0)


# Errors


@pytest.mark.parametrize("workers", [1, 2])
def test_a_database_that_is_away_neither_delays_a_start_nor_causes_a_restart(
    shop: Site, mariadb: Server, workers: int
) -> None:
    """This holds for a running daemon, and for one that is started during the outage."""
    quick = "from daemonkit.schedules.backoff import Backoff\n"
    steady = quick + STEADY.replace("schedule =", "backoff = Backoff(cap=2)\n    schedule =")
    running = shop.command("running", steady)
    opening = f"""
    workers = {workers}
    per_worker = True

    def lifespan(self):
        connection.ensure_connection()
        return super().lifespan()
"""
    starting = shop.command("starting", steady + opening)
    shop.drop_in(starting, "[Service]\nTimeoutStartSec=10\n")
    shop.start(running)
    eventually(lambda: notes(mariadb, DATABASE), 20)
    mariadb.stop()
    shop.machine.run("systemctl", "start", starting)
    assert shop.machine.show(starting, "ActiveState") == "active"
    eventually(lambda: "waits for the database" in shop.machine.status(starting), 20)
    eventually(lambda: "failed after" in shop.machine.status(running), 20)
    mariadb.start()
    mariadb.execute("DELETE FROM entry", database=DATABASE)
    eventually(lambda: len(notes(mariadb, DATABASE)) > 3, 30)
    eventually(lambda: "waits for the database" not in shop.machine.status(starting), 30)
    eventually(lambda: "took" in shop.machine.status(running), 30)
    assert (shop.restarts(running), shop.restarts(starting)) == (0, 0)


def test_a_wrong_password_ends_in_failed_without_a_restart(shop: Site, mariadb: Server) -> None:
    url = mariadb.url_through(mariadb.port, DATABASE).replace("only-for-tests", "wrong")
    shop.environment(DATABASE_URL=url)
    unit = shop.command("refused", STEADY)
    shop.machine.run("systemctl", "start", "--no-block", unit)
    shop.is_state(unit, "failed", within=90)
    assert shop.machine.show(unit, "ExecMainStatus") == "78"
    assert shop.restarts(unit) == 0
    assert "correct DATABASES" in shop.machine.journal(unit, "--priority=err")


def test_an_instance_that_is_not_a_daemon_fails_once_with_a_reason(shop: Site) -> None:
    unit = "daemonkit@expire_basket"
    assert shop.machine.run("systemctl", "start", unit, check=False).returncode
    shop.is_state(unit, "failed")
    assert shop.machine.show(unit, "ExecMainStatus") == "2"
    assert shop.restarts(unit) == 0
    assert "there is no daemon 'expire_basket'; did you mean expire_baskets" in (
        shop.machine.journal(unit, "--priority=err")
    )


def test_a_missing_environment_file_is_named_and_waited_for(shop: Site) -> None:
    unit = shop.command("envless", STEADY)
    shop.machine.sh("mv /etc/daemonkit.env /etc/away.env")
    shop.machine.run("systemctl", "start", unit, check=False)
    assert "Failed to load environment files" in shop.machine.wait_for(unit, "environment files")
    shop.machine.sh("mv /etc/away.env /etc/daemonkit.env")
    shop.is_state(unit, "active")


def test_the_template_accepts_a_folder_with_a_space(shop: Site) -> None:
    unit = shop.command("spacious", STEADY)
    shop.machine.run("ln", "-sfn", FOLDER, "/srv/a link of 9%")
    shop.drop_in(unit, '[Service]\nEnvironment="PROJECT=/srv/a link of 9%%"\n')
    shop.start(unit)
    environment = shop.machine.sh(f"tr '\\0' '\\n' </proc/{shop.machine.pid(unit)}/environ").stdout
    assert "PWD=/srv/a link of 9%\n" in environment


def test_a_missing_project_folder_fails_once(shop: Site) -> None:
    unit = shop.command("homeless", STEADY)
    shop.drop_in(unit, "[Service]\nEnvironment=PROJECT=/srv/gone\n")
    shop.machine.run("systemctl", "start", unit, check=False)
    shop.is_state(unit, "failed")
    assert shop.restarts(unit) == 0
    assert "can't cd to /srv/gone" in shop.machine.journal(unit)


def test_a_reload_follows_a_link_to_the_next_release(shop: Site) -> None:
    unit = shop.command("released", says("of the first release"))
    shop.machine.sh(f"cp -a {FOLDER} /srv/second; ln -sfn {FOLDER} /srv/current")
    Site(shop.machine, "/srv/second").command("released", says("of the second, a longer one"))
    shop.drop_in(unit, "[Service]\nEnvironment=PROJECT=/srv/current\n")
    shop.start(unit)
    shop.machine.wait_for(unit, "of the first release")
    pid = shop.machine.pid(unit)
    shop.machine.run("ln", "-sfn", "/srv/second", "/srv/current")
    shop.machine.run("systemctl", "reload", unit)
    shop.machine.wait_for(unit, "of the second, a longer one")
    assert shop.machine.pid(unit) == pid


# Several daemons


def test_twelve_daemons_are_started_and_stopped_together(shop: Site, mariadb: Server) -> None:
    units = [shop.command(f"dozen_{number}", STEADY) for number in range(12)]
    shop.machine.run("systemctl", "enable", *units)
    shop.machine.run("systemctl", "start", "daemonkit.target")
    for unit in units:
        shop.is_state(unit, "active", within=60)
    eventually(lambda: len(notes(mariadb, DATABASE)) > 12, 30)
    shop.machine.run("systemctl", "stop", "daemonkit.target")
    for unit in units:
        shop.is_state(unit, "inactive", within=60)
    eventually(lambda: not mariadb.sessions(), 10)


def test_a_supervisor_notifies_systemd_for_its_workers(shop: Site, mariadb: Server) -> None:
    def several(word: str) -> str:
        return f"""
        class Command(BaseDaemonCommand):
            schedule = Poll(idle=0.5)
            workers = 2

            def tick(self):
                note("{word}")
                raise ValueError("for a reason")
        """

    unit = shop.command("several", several("before"))
    shop.start(unit)
    eventually(lambda: "several 2 of 2 ready" in shop.machine.status(unit), 20)
    eventually(lambda: "before" in notes(mariadb, DATABASE), 20)
    pid = shop.machine.pid(unit)
    shop.command("several", several("after the reload"))
    shop.machine.run("systemctl", "reload", unit)
    eventually(lambda: "after the reload" in notes(mariadb, DATABASE), 20)
    shop.is_state(unit, "active")
    assert (shop.machine.pid(unit), shop.restarts(unit)) == (pid, 0)
    eventually(lambda: "several 2 of 2 ready" in shop.machine.status(unit), 20)
    texts = [text for priority, text in shop.entries(unit) if priority == 3]
    assert "several.2 | ValueError: for a reason" in texts
    shop.machine.run("systemctl", "stop", unit)
    assert shop.machine.show(unit, "Result") == "success"
    eventually(lambda: not mariadb.sessions(), 10)


# The sandbox


def test_the_units_verify_clean_and_are_hardened(shop: Site) -> None:
    unit = "daemonkit@import_prices.service"
    files = [f"{UNITS}/daemonkit@.service", f"{UNITS}/daemonkit.target"]
    verified = shop.machine.run("systemd-analyze", "verify", *files)
    assert verified.stdout + verified.stderr == ""
    report = shop.machine.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert found, report
    assert float(found[1]) <= 2.0, report


def test_every_driver_works_in_the_sandbox(
    shop: Site, mariadb: MariaDB, postgres: PostgreSQL
) -> None:
    unit = shop.command(
        "anywhere",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=1)

            def tick(self):
                with connection.cursor() as cursor:
                    cursor.execute("CREATE TABLE IF NOT EXISTS anywhere (id INTEGER)")
                    cursor.execute("INSERT INTO anywhere VALUES (1)")
                    cursor.execute("DROP TABLE anywhere")
                print("wrote to", connection.vendor, flush=True)
        """,
    )
    urls = {
        "mysql": mariadb.url_through(mariadb.port, DATABASE),
        "postgresql": postgres.url,
        "sqlite": "sqlite:////var/lib/daemonkit/shop.sqlite3",
    }
    for vendor, url in urls.items():
        shop.environment(DATABASE_URL=url)
        shop.start(unit)
        shop.machine.wait_for(unit, f"wrote to {vendor}")
        shop.machine.run("systemctl", "stop", unit)


def test_a_secret_can_be_a_credential_instead_of_an_environment_variable(
    shop: Site, mariadb: MariaDB
) -> None:
    shop.environment()
    url = mariadb.url_through(mariadb.port, DATABASE)
    shop.machine.write("/etc/daemonkit/database_url", f"{url}\n", mode=0o600)
    unit = shop.command("secretive", STEADY)
    shop.drop_in(unit, "[Service]\nLoadCredential=database_url:/etc/daemonkit/database_url\n")
    shop.start(unit)
    eventually(lambda: notes(mariadb, DATABASE), 20)
    pid = shop.machine.pid(unit)
    seen = shop.machine.run("sh", "-c", f"cat /proc/{pid}/environ /proc/{pid}/cmdline").stdout
    assert PASSWORD not in seen


# The journal


def test_the_journal_has_levels_and_no_second_time_stamp(shop: Site) -> None:
    unit = shop.command(
        "failing",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=60)

            def tick(self):
                raise ValueError("for a reason")
        """,
    )
    shop.start(unit)
    shop.machine.wait_for(unit, "ValueError: for a reason")
    entries = shop.entries(unit)
    assert entries[0] == (6, "failing started: every 1m")
    texts = [text for priority, text in entries if priority == 3]
    assert texts[0].startswith("failing tick 1 failed after ")
    assert texts[1] == "Traceback (most recent call last):"
    assert texts[-1] == "ValueError: for a reason"
    shown = shop.machine.run("journalctl", "-q", "--priority=err", f"--identifier={unit}").stdout
    assert "ValueError: for a reason" in shown
    assert "failing started" not in shown
