"""The doors, ``manage.py run_daemon`` and ``manage.py daemons``: what goes in, what is refused.

A refusal is one sentence that says how to correct it, and an exit code, without a traceback.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import re
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, execute_from_command_line, get_commands
from django.core.management.base import CommandError
from pytest_django import Settings
from shop.models import PriceFile

from daemonkit import Exit
from daemonkit.process import signal_handlers
from lab.processes import Daemon
from lab.servers import MariaDB, PostgreSQL, Server
from lab.servers.base import free_port
from tests.kit.processes import Manage
from tests.kit.projects import Project


@dataclass(frozen=True)
class Said:
    """What a command line came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def manage_py(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """``manage_py("daemons", "next", ...)``: the whole command line, in this process."""

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        code: Any = 0
        with own_signals(), deadline(20, f"manage.py {' '.join(arguments)} has not ended"):
            try:
                execute_from_command_line(["manage.py", *arguments])
            except SystemExit as end:
                code = end.code or 0
        return Said(int(code), *capsys.readouterr())

    return run


ManagePy = Callable[..., Said]


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Give back what a command line keeps to the end of its process."""
    signums = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {signum: signal.getsignal(signum) for signum in signums}
    try:
        yield
    finally:
        gc.unfreeze()
        atexit.unregister(signal_handlers._ignore_signals)
        if (standing := signal_handlers._current) is not None:  # it would watch later tests
            signal_handlers._end(standing)
            signal.set_wakeup_fd(-1)
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def deadline(seconds: float, complaint: str) -> Iterator[None]:
    """Fail a test in whose process a daemon runs that should have been refused."""
    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(complaint))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def refused(daemon: Daemon, code: Exit) -> str:
    """The one sentence of a process that was refused with this exit code."""
    assert daemon.wait(20) == code, daemon.output
    lines = daemon.stderr.splitlines()
    assert len(lines) == 1, daemon.output
    assert not daemon.stdout
    return lines[0].removeprefix("CommandError: ")


# What is typed


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (
            ["import_price"],
            "there is no daemon 'import_price'; did you mean import_prices? "
            "`manage.py daemons` lists them",
        ),
        (["zzz"], "there is no daemon 'zzz'; `manage.py daemons` lists them"),
        (
            ["clearsessions"],
            "clearsessions is not a daemon: say how often, with --every 1h or --cron '0 3 * * *'",
        ),
        (
            ["shop.prices.refresh"],
            "shop.prices.refresh is not a daemon: say how often, "
            "with --every 1h or --cron '0 3 * * *'",
        ),
        (
            ["clearsessions", "--every", "1h", "--", "--nope"],
            "clearsessions does not accept the arguments after --: "
            "Error: unrecognized arguments: --nope",
        ),
        (
            ["clearsessions", "--every", "1h", "--cron", "0 3 * * *"],
            "say --every or --cron, not both",
        ),
        (
            ["expire_baskets", "--every", "-1"],
            "--every takes a duration such as 30s, 5m, 1h30m or 500ms, not '-1'",
        ),
        (
            ["expire_baskets", "--every", "soon"],
            "--every takes a duration such as 30s, 5m, 1h30m or 500ms, not 'soon'",
        ),
        (["expire_baskets", "--every", "0"], "--every must be above zero, not 0"),
        (["expire_baskets", "--every", "none"], "--every needs a time; it cannot be none"),
        (
            ["expire_baskets", "--cron", "0 0 3 * * *"],
            "--cron: a cron string has five fields (minute hour day month weekday), "
            "'0 0 3 * * *' has 6",
        ),
        (
            ["expire_baskets", "--cron", "61 * * * *"],
            "--cron: '61 * * * *' is no cron string: Bad minute",
        ),
        (
            ["expire_baskets", "--max-ticks", "0"],
            "max_ticks (--max-ticks) takes a whole number above zero, not '0'",
        ),
        (
            ["expire_baskets", "--stop-timeout", "none"],
            "stop_timeout (--stop-timeout) needs a time; it cannot be none",
        ),
        (
            ["shop.nothing.refresh", "--every", "30s"],
            "shop.nothing.refresh cannot be imported: "
            "ModuleNotFoundError: No module named 'shop.nothing'",
        ),
        (
            ["shop.prices.missing", "--every", "30s"],
            "shop.prices.missing cannot be imported: "
            'ImportError: Module "shop.prices" does not define a "missing" attribute/class',
        ),
        (
            ["shop.reports.__doc__", "--every", "30s"],
            "shop.reports.__doc__ is not callable; name a function",
        ),
        (
            [".refresh", "--every", "30s"],
            ".refresh cannot be imported: ValueError: Empty module name",
        ),
        (
            ["expire_baskets", "--", "--older-than", "5"],
            "expire_baskets is a daemon: write its options after its name, without --",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_one_sentence(
    manage_py: ManagePy, typed: list[str], sentence: str
) -> None:
    assert manage_py("run_daemon", *typed) == Said(2, "", f"CommandError: {sentence}\n")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["run_daemon"], "error: name a daemon or several, or use --all"),
        (
            ["run_daemon", "--max-ticks", "2", "expire_baskets"],
            "unrecognized arguments: --max-ticks",
        ),
        (["run_daemon", "expire_baskets", "--nope"], "unrecognized arguments: --nope"),
        (["run_daemon", "expire_baskets", "--every"], "argument --every: expected one argument"),
        (["run_daemon", "expire_baskets", "--schedule", "5"], "unrecognized arguments: --schedule"),
        (["run_daemon", "daily_report", "--day", "x"], "argument --day: invalid"),
        (["daemons", "halt"], "invalid choice: 'halt'"),
        (["daemons", "next"], "the following arguments are required: name"),
        (["daemons", "next", "expire_baskets", "--hours", "many"], "argument --hours: invalid"),
        (["daemons", "--format", "yaml"], "argument --format: invalid choice: 'yaml'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_parse_is_refused_with_the_usage(
    manage_py: ManagePy, typed: list[str], sentence: str
) -> None:
    said = manage_py(*typed)
    assert said.code == 2
    assert said.err.startswith("usage: manage.py ")
    assert sentence in said.err.splitlines()[-1]
    assert "Traceback" not in said.err


def test_a_process_that_is_refused_says_one_sentence_and_ends_with_2(manage: Manage) -> None:
    daemon = manage("run_daemon", "import_price")
    assert refused(daemon, Exit.USAGE).startswith("there is no daemon 'import_price'; did you mean")


def test_with_traceback_a_refusal_shows_where_it_comes_from(manage: Manage) -> None:
    daemon = manage("run_daemon", "--traceback", "import_price")
    assert daemon.wait() != 0
    assert "Traceback" in daemon.stderr


# Commands that are no daemons yet


def names(cases: list[tuple[str, str, str]]) -> list[str]:
    return [name for name, _, _ in cases]


NO_DAEMONS: list[tuple[str, str, str]] = [
    (
        "tickless",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)
        """,
        "tickless has no tick(); write one: it is the daemon's unit of work",
    ),
    (
        "unscheduled",
        """
        class Command(BaseDaemonCommand):
            def tick(self): ...
        """,
        "unscheduled has no schedule: write schedule = Every(seconds=30) in its class, "
        "or say --every 30s",
    ),
    (
        "with_interval",
        """
        class Command(BaseDaemonCommand):
            interval = 30

            def tick(self): ...
        """,
        "with_interval has no schedule: write schedule = Every(seconds=30) in its class, "
        "or say --every 30s (interval is not a setting)",
    ),
    (
        "with_a_number",
        """
        class Command(BaseDaemonCommand):
            schedule = 30

            def tick(self): ...
        """,
        "with_a_number: schedule must be Every(...), Cron(...), Poll(...) or a trigger of "
        "APScheduler's, not 30",
    ),
    (
        "generating",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            def tick(self):
                yield 1
        """,
        "generating.tick() is a generator, which returns before it works: no yield",
    ),
    (
        "generating_later",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            async def tick(self):
                yield 1
        """,
        "generating_later.tick() is a generator, which returns before it works: no yield",
    ),
    (
        "living",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            def tick(self): ...

            def lifespan(self):
                yield
        """,
        "living.lifespan() is a generator: put @contextmanager above it",
    ),
    (
        "clashing",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            def add_arguments(self, parser):
                parser.add_argument("--pulse")

            def tick(self): ...
        """,
        "clashing has an option of its own that clashes with daemonkit's --pulse; "
        "give yours another name",
    ),
    (
        "clashing_inside",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            def add_arguments(self, parser):
                parser.add_argument("--rounds", dest="max_ticks")

            def tick(self): ...
        """,
        "clashing_inside has an option of its own that clashes with daemonkit's --max-ticks; "
        "give yours another name",
    ),
    (
        "too_long",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)
            stop_timeout = None

            def tick(self): ...
        """,
        "stop_timeout (--stop-timeout) needs a time; it cannot be none",
    ),
]

NOT_IMPORTED: list[tuple[str, str, str]] = [
    (
        "handling",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            def handle(self, **options): ...
        """,
        "TypeError: depot.management.commands.handling.Command overrides handle(), "
        "which runs its life: write tick() instead",
    ),
    (
        "never",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=-1)
        """,
        "ValueError: Every() needs an interval above zero, such as Every(seconds=30), not -1 s",
    ),
    (
        "sixty_one",
        """
        class Command(BaseDaemonCommand):
            schedule = Cron("61 * * * *")
        """,
        "ValueError: '61 * * * *' is no cron string: Bad minute",
    ),
    (
        "unfinished",
        "schedule = = 30",
        "SyntaxError: invalid syntax (unfinished.py, line 3)",
    ),
    (
        "in_need",
        "import a_library_that_is_not_there",
        "ModuleNotFoundError: No module named 'a_library_that_is_not_there'",
    ),
    ("leaving", "raise SystemExit(3)", "SystemExit: 3"),
]


@pytest.fixture
def installed(
    project: Project, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """The project's app as one of this process, which is quicker than a process of its own."""
    monkeypatch.syspath_prepend(project.folder)
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "depot"]
    get_commands.cache_clear()
    yield project
    get_commands.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "depot"]:
        del sys.modules[name]


@pytest.mark.parametrize(("name", "source", "sentence"), NO_DAEMONS, ids=names(NO_DAEMONS))
def test_an_incomplete_class_is_refused_with_advice(
    installed: Project, manage_py: ManagePy, name: str, source: str, sentence: str
) -> None:
    installed.command(name, source)
    assert manage_py("run_daemon", name) == Said(2, "", f"CommandError: {sentence}\n")
    assert manage_py(name) == Said(2, "", f"CommandError: {sentence}\n")


@pytest.mark.parametrize(("name", "source", "sentence"), NOT_IMPORTED, ids=names(NOT_IMPORTED))
def test_a_command_that_does_not_import_is_refused_with_its_reason(
    installed: Project, manage_py: ManagePy, name: str, source: str, sentence: str
) -> None:
    installed.command(name, source)
    said = manage_py("run_daemon", name)
    assert said == Said(2, "", f"CommandError: {name} of depot cannot be imported: {sentence}\n")


@pytest.mark.parametrize(
    "door", [["run_daemon", "clashing"], ["clashing"], ["run_daemon", "never"]]
)
def test_as_processes_they_say_one_sentence_too_and_end_with_2(
    project: Project, door: list[str]
) -> None:
    for name, source, _ in (*NO_DAEMONS, *NOT_IMPORTED):
        project.command(name, source)
    sentence = refused(project.manage(*door), Exit.USAGE)
    assert sentence.startswith(("clashing has an option", "never of depot cannot be imported"))


# Databases that are no good, at the start


def failed_once(manage: Manage, url: str, code: Exit) -> str:
    """What ``--once`` says of a database before it ends with this exit code."""
    daemon = manage("run_daemon", "expire_baskets", "--once", env={"DATABASE_URL": url})
    assert daemon.wait(20) == code, daemon.output
    assert "Traceback" not in daemon.output
    (sentence,) = [line for line in daemon.stderr.splitlines() if "OperationalError: " in line]
    return sentence.partition("OperationalError: ")[2]


def test_a_refused_password_ends_once_with_78(manage: Manage, mariadb: MariaDB) -> None:
    url = mariadb.url.replace("only-for-tests", "wrong")
    sentence = failed_once(manage, url, Exit.MISCONFIGURED)
    assert sentence.startswith("(1045, \"Access denied for user 'daemonkit'@'127.0.0.1'")


def test_a_missing_database_ends_once_with_78(manage: Manage, mariadb: MariaDB) -> None:
    url = mariadb.url_through(mariadb.port, "test_missing")
    sentence = failed_once(manage, url, Exit.MISCONFIGURED)
    assert sentence.startswith("(1049, \"Unknown database 'test_missing'")


@pytest.mark.parametrize("scheme", ["mysql", "postgres"])
def test_a_database_that_is_away_ends_once_with_1_at_once(manage: Manage, scheme: str) -> None:
    url = f"{scheme}://user:secret@127.0.0.1:{free_port()}/shop"
    sentence = failed_once(manage, url, Exit.TICK_FAILED)
    assert "connect" in sentence
    assert "secret" not in sentence


def test_postgresql_has_no_code_for_a_refusal_so_once_ends_with_1_and_its_words(
    manage: Manage, postgres: PostgreSQL
) -> None:
    wrong = postgres.url.replace("only-for-tests", "wrong")
    refusal = 'password authentication failed for user "daemonkit"'
    assert refusal in failed_once(manage, wrong, Exit.TICK_FAILED)
    missing = postgres.url_through(postgres.port, "missing")
    assert 'database "missing" does not exist' in failed_once(manage, missing, Exit.TICK_FAILED)


@pytest.mark.parametrize("arguments", [["run_daemon", "expire_baskets"], ["daemons"]])
def test_a_driver_that_is_not_installed_ends_it_with_78(
    project: Project, arguments: list[str]
) -> None:
    project.module("MySQLdb/__init__.py", "raise ImportError('No module named MySQLdb')")
    daemon = project.manage(*arguments, DATABASE_URL="mysql://user@127.0.0.1/shop")
    assert refused(daemon, Exit.MISCONFIGURED) == (
        "DATABASES['default']: Error loading MySQLdb module. Did you install mysqlclient?"
    )


def test_an_engine_that_does_not_exist_ends_it_with_78(project: Project) -> None:
    project.module(
        "depot_settings.py",
        """
        from config.settings import *
        DATABASES = {"default": {"ENGINE": "django.db.backends.mariadb", "NAME": "shop"}}
        """,
    )
    sentence = refused(project.manage("run_daemon", "expire_baskets"), Exit.MISCONFIGURED)
    assert sentence.startswith(
        "DATABASES['default']: 'django.db.backends.mariadb' isn't an available"
    )


# What is run


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """An inbox with three price files."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(3):
        content = f"sku,amount,currency\nACME-{number},1.50,EUR\n"
        (inbox / f"prices-{number}.csv").write_text(content)
    return inbox


@pytest.mark.django_db
def test_call_command_runs_a_daemon_by_name(prices: Path) -> None:
    call_command("run_daemon", "import_prices", "--inbox", str(prices), "--max-ticks", "2")
    assert PriceFile.objects.count() == 2


@pytest.mark.django_db
def test_its_own_name_and_run_daemon_are_the_same(manage_py: ManagePy, prices: Path) -> None:
    options = ["import_prices", "--inbox", str(prices), "--max-ticks", "1"]
    for command_line in ([*options], ["run_daemon", *options]):
        assert manage_py(*command_line) == Said(0, "", "")
    assert PriceFile.objects.count() == 2


@pytest.mark.django_db
def test_options_of_every_command_may_stand_before_the_name_or_behind(
    manage_py: ManagePy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "daemonkit")
    daemon = ["expire_baskets", "--every", "10ms", "--max-ticks", "1"]
    for typed in (["-v", "2", *daemon], [*daemon, "-v", "2"], ["-v2", "--no-color", *daemon]):
        caplog.clear()
        assert manage_py("run_daemon", *typed).code == 0
        assert "expire_baskets tick 1 took" in caplog.text
    assert manage_py("run_daemon", *daemon).code == 0
    assert caplog.text.count("tick 1 took") == 1


@pytest.mark.django_db
def test_any_command_is_a_daemon_and_its_options_stand_behind_two_dashes(
    manage_py: ManagePy, prices: Path
) -> None:
    call_command("import_prices", inbox=prices, max_ticks=1)
    typed = ["run_daemon", "visit_shop", "--every", "10ms", "--max-ticks", "2"]
    said = manage_py(*typed, "--", "--customers", "3", "--seed", "7")
    assert said.out.count("3 baskets, ") == 2


def test_a_command_that_exits_with_an_error_is_a_failed_tick_and_no_end(project: Project) -> None:
    project.command(
        "leaving_early",
        """
        from django.core.management.base import BaseCommand

        class Command(BaseCommand):
            def handle(self, **options):
                raise SystemExit(3)
        """,
    )
    daemon = project.manage("run_daemon", "leaving_early", "--every", "10ms", "--max-failures", "2")
    assert daemon.wait() == Exit.MAX_FAILURES
    assert "leaving_early exited with 3" in daemon.stderr.splitlines()[-1]


def migrated(manage: Manage) -> None:
    assert manage("migrate", "-v", "0").wait(30) == 0


def test_processes_of_a_command_a_callable_and_a_daemon(manage: Manage) -> None:
    migrated(manage)
    running = [
        manage("run_daemon", "clearsessions", "--every", "1s", "--max-ticks", "2", "-v", "2", "--",
               "--verbosity", "0"),
        manage("run_daemon", "shop.prices.refresh", "--every", "1s", "--max-ticks", "2", "-v", "2"),
        manage("expire_baskets", "--every", "1s", "--max-ticks", "2", "-v", "2"),
    ]  # fmt: skip
    for daemon in running:
        assert daemon.wait(20) == 0
        lines = [line.split(maxsplit=3)[3] for line in daemon.stderr.splitlines()]
        first, *ticks, end = lines
        assert first.endswith(" started: every 1s")
        assert [line.split(" took")[0].split(maxsplit=1)[1] for line in ticks] == [
            "tick 1",
            "tick 2",
        ]
        assert end.endswith(" stopped: max_ticks of 2 reached")


def test_once_ends_with_1_when_the_tick_failed_and_shows_it(project: Project) -> None:
    project.command(
        "failing",
        """
        class Command(BaseDaemonCommand):
            def tick(self):
                raise LookupError("no such supplier")
        """,
    )
    daemon = project.manage("run_daemon", "failing", "--once")
    assert daemon.wait() == Exit.TICK_FAILED
    assert "failing tick 1 failed after" in daemon.stderr
    assert daemon.stderr.count("Traceback") == 1


# Help


@pytest.mark.parametrize("door", [[], ["run_daemon"]])
def test_help_shows_the_daemons_own_options_and_those_of_every_daemon(
    manage_py: ManagePy, door: list[str]
) -> None:
    said = manage_py(*door, "import_prices", "--help")
    assert said.code == 0
    assert "Import the price files dropped into the inbox." in said.out
    flags = re.findall(r"^  (--[a-z-]+)", said.out, re.MULTILINE)
    assert {"--inbox", "--every", "--cron", "--once", "--max-ticks", "--max-seconds"} <= {*flags}
    assert {"--max-failures", "--tick-timeout", "--stop-timeout", "--pulse", "--reload"} <= {*flags}
    assert said.out.index("daemon options:") > said.out.index("--inbox")


# daemons


def test_daemons_lists_each_with_its_app_schedule_and_help(manage_py: ManagePy) -> None:
    listed = manage_py("daemons").out.splitlines()
    rows = [re.split(r" {2,}", line) for line in listed]
    assert [
        "import_prices",
        "shop",
        "poll, idle 2s",
        "Import the price files dropped into the inbox.",
    ] in rows
    assert [
        "daily_report",
        "shop",
        "cron 0 3 * * * (Asia/Shanghai)",
        "Write the report of the day that has ended.",
    ] in rows
    assert not {"clearsessions", "visit_shop", "run_daemon"} & {row[0] for row in rows}
    columns = [line.index(row[1]) for line, row in zip(listed, rows, strict=True)]
    assert len(set(columns)) == 1


def test_daemons_as_json_says_the_same_to_programs(manage_py: ManagePy) -> None:
    for typed in (["--format", "json"], ["list", "--format", "json"], ["--format", "json", "list"]):
        listed = json.loads(manage_py("daemons", *typed).out)
        assert {
            "name": "expire_baskets",
            "app": "shop",
            "schedule": "every 30s",
            "help": "Give back the stock that forgotten baskets hold.",
            "error": None,
        } in listed


def test_a_project_without_daemons_is_told_what_one_is(
    manage_py: ManagePy, settings: Settings
) -> None:
    settings.INSTALLED_APPS = ["daemonkit"]
    get_commands.cache_clear()
    try:
        said = manage_py("daemons")
    finally:
        get_commands.cache_clear()
    assert said.out == "No daemons: no command subclasses daemonkit.BaseDaemonCommand.\n"


def test_commands_that_do_not_import_and_incomplete_daemons_have_a_line_each(
    project: Project,
) -> None:
    for name, source, _ in (*NO_DAEMONS, *NOT_IMPORTED):
        project.command(name, source)
    text, as_json = project.manage("daemons"), project.manage("daemons", "--format", "json")
    assert (text.wait(20), text.stderr) == (0, "")
    lines = {line.split()[0]: line for line in text.stdout.splitlines()}
    for name, _, reason in NOT_IMPORTED:
        assert lines[name].endswith(f"does not import: {reason}")
    assert re.split(r" {2,}", lines["tickless"]) == ["tickless", "depot", "every 30s"]
    assert re.split(r" {2,}", lines["unscheduled"]) == ["unscheduled", "depot", "-"]
    assert "expire_baskets" in lines
    assert (as_json.wait(20), as_json.stderr) == (0, "")
    told = {each["name"]: each for each in json.loads(as_json.stdout)}
    assert told.keys() == lines.keys()
    assert told["in_need"]["error"] == f"does not import: {NOT_IMPORTED[4][2]}"


# daemons next


def test_next_prints_the_times_to_come_in_the_daemons_zone(manage_py: ManagePy) -> None:
    said = manage_py("daemons", "next", "daily_report", "--hours", "48")
    times = [datetime.fromisoformat(line) for line in said.out.splitlines()]
    assert len(times) == 2
    assert {(time.hour, time.minute, time.utcoffset()) for time in times} == {
        (3, 0, timedelta(hours=8))
    }
    assert times[1] - times[0] == timedelta(days=1)
    assert timedelta(0) < times[0] - datetime.now(times[0].tzinfo) <= timedelta(days=1)


def test_next_of_an_interval_begins_now_in_the_projects_zone(
    manage_py: ManagePy, settings: Settings
) -> None:
    settings.TIME_ZONE = "Asia/Kathmandu"
    said = manage_py("daemons", "next", "expire_baskets", "--hours", "0.02")
    times = [datetime.fromisoformat(line) for line in said.out.splitlines()]
    assert [time - times[0] for time in times] == [timedelta(seconds=30 * n) for n in range(3)]
    assert times[0].utcoffset() == timedelta(hours=5, minutes=45)
    assert abs(times[0] - datetime.now(times[0].tzinfo)) < timedelta(seconds=10)


def test_next_as_json(manage_py: ManagePy) -> None:
    for typed in (
        ["next", "daily_report", "--format", "json"],
        ["--format", "json", "next", "daily_report"],
    ):
        said = json.loads(manage_py("daemons", *typed).out)
        assert said["name"] == "daily_report"
        assert said["schedule"] == "cron 0 3 * * * (Asia/Shanghai)"
        assert re.fullmatch(r"\d{4}-\d\d-\d\d 03:00:00\+08:00", *said["due"])


def test_next_of_a_poller_says_that_it_polls(manage_py: ManagePy) -> None:
    lines = manage_py("daemons", "next", "import_prices", "--hours", "0.001").out.splitlines()
    assert lines[0] == "import_prices polls: at once while there is work; if there is none:"
    assert len(lines) == 3


def test_next_that_has_nothing_to_say_says_so(manage_py: ManagePy) -> None:
    assert manage_py("daemons", "next", "daily_report", "--hours", "0.000001").out == (
        "Nothing within 1e-06 hours.\n"
    )


@pytest.mark.parametrize("hours", ["2", "1e9", "inf"])
def test_next_ends_after_200_times(manage_py: ManagePy, hours: str) -> None:
    lines = manage_py("daemons", "next", "expire_baskets", "--hours", hours).out.splitlines()
    assert len(lines) == 201
    assert lines[-1] == "... and so on: every 30s"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["daily_reports"], "there is no daemon 'daily_reports'; did you mean daily_report? "
                            "`manage.py daemons` lists them"),
        (["clearsessions"], "clearsessions is not a daemon: say how often, "
                            "with --every 1h or --cron '0 3 * * *'"),
        (["daily_report", "--hours", "-1"], "--hours must be above zero"),
        (["daily_report", "--hours", "nan"], "--hours must be above zero"),
    ],
)  # fmt: skip
def test_next_refuses_in_one_sentence(manage_py: ManagePy, typed: list[str], sentence: str) -> None:
    assert manage_py("daemons", "next", *typed) == Said(2, "", f"CommandError: {sentence}\n")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_next_of_a_daemon_without_a_schedule_says_what_is_missing(
    installed: Project, manage_py: ManagePy, number: int
) -> None:
    name, source, sentence = NO_DAEMONS[number]
    installed.command(name, source)
    assert manage_py("daemons", "next", name) == Said(2, "", f"CommandError: {sentence}\n")


# daemons check


def test_check_says_which_server_there_is_and_what_is_missing(
    manage: Manage, server: Server
) -> None:
    server.set_idle_timeout(600)
    said = manage("daemons", "check", env={"DATABASE_URL": server.url})
    assert said.wait() == 0
    first, *advice = said.stdout.splitlines()
    name = "MariaDB" if server.vendor == "mysql" else "PostgreSQL"
    assert re.fullmatch(rf"default: {name} [\d.]+, drops idle sessions after 600 s", first)
    assert "  set OPTIONS['connect_timeout']: it limits the wait on a half-open link" in advice
    assert server.sessions() == set()


def test_check_of_sqlite(manage: Manage) -> None:
    said = manage("daemons", "check", "--format", "json")
    assert said.wait() == 0
    assert json.loads(said.stdout) == [
        {"alias": "default", "ok": True, "text": f"SQLite {sqlite3.sqlite_version}", "advice": []}
    ]


@pytest.mark.parametrize("scheme", ["mysql", "postgres"])
def test_check_of_a_database_that_is_away_ends_with_1_at_once(manage: Manage, scheme: str) -> None:
    url = f"{scheme}://user:secret@127.0.0.1:{free_port()}/shop"
    said = manage("daemons", "check", env={"DATABASE_URL": url})
    assert said.wait() == Exit.TICK_FAILED
    assert said.stdout.startswith("default: OperationalError: ")
    assert len(said.stdout.splitlines()) == 1
    assert said.stderr == "CommandError: no connection to default"
    assert "secret" not in said.output


def test_check_of_a_refused_password_ends_with_78(manage: Manage, mariadb: MariaDB) -> None:
    url = mariadb.url.replace("only-for-tests", "wrong")
    said = manage("daemons", "check", env={"DATABASE_URL": url})
    assert said.wait() == Exit.MISCONFIGURED
    assert "Access denied for user 'daemonkit'" in said.stdout
    assert said.stderr == "CommandError: no connection to default"


# daemons runs


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--since", "soon"], "--since takes a time such as '2026-11-01 03:00', or a duration"),
        (["--limit", "0"], "--limit"),
        (["--limit", "none"], "(--limit) needs a number"),
        (["housekeeping", "--job", "reprot"], "housekeeping has no job 'reprot': its jobs are "),
    ],
)
def test_runs_refuses_in_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=re.escape(sentence)) as refusal:
        call_command("daemons", "runs", *arguments)
    assert refusal.value.returncode == 2


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"database": "nope"}, "DAEMONKIT['database'] is 'nope', which is not in DATABASES"),
        (
            {"keep_run": 3},
            "DAEMONKIT takes database, keep_runs, store_errors, listen, status, version; it has "
            "['keep_run']",
        ),
        (
            [],
            "DAEMONKIT takes database, keep_runs, store_errors, listen, status, version; it is not "
            "a dictionary",
        ),
    ],
)
def test_runs_under_settings_that_make_no_sense_ends_with_78(
    project: Project, said: object, sentence: str
) -> None:
    project.module("depot_settings.py", f"from config.settings import *\nDAEMONKIT = {said!r}")
    ended = project.manage("daemons", "runs")
    assert ended.wait() == Exit.MISCONFIGURED
    assert ended.stderr == f"CommandError: ImproperlyConfigured: {sentence}"


def test_runs_of_a_refused_password_ends_with_78_and_no_wrong_advice(
    manage: Manage, mariadb: MariaDB
) -> None:
    url = mariadb.url.replace("only-for-tests", "wrong")
    said = manage("daemons", "runs", env={"DATABASE_URL": url})
    assert said.wait() == Exit.MISCONFIGURED
    assert said.stderr.startswith(
        "CommandError: the ledger cannot be read: OperationalError: (1045"
    )
    assert "migrate" not in said.stderr


def test_runs_of_a_database_that_is_away_ends_with_1_and_no_wrong_advice(manage: Manage) -> None:
    url = f"mysql://user:secret@127.0.0.1:{free_port()}/shop"
    said = manage("daemons", "runs", env={"DATABASE_URL": url})
    assert said.wait() == Exit.TICK_FAILED
    assert said.stderr.startswith(
        "CommandError: the ledger cannot be read: OperationalError: (2002"
    )
    assert "migrate" not in said.stderr


def test_runs_without_the_table_says_how_to_make_it(manage: Manage, server: Server) -> None:
    said = manage("daemons", "runs", env={"DATABASE_URL": server.url})
    assert said.wait() == Exit.MISCONFIGURED
    assert said.stderr.endswith(": run `manage.py migrate daemonkit`")
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["runs", "expire_baskets"], "expire_baskets has no jobs, and a loop has no runs"),
        (["runs", "clearsessions"], "clearsessions has no jobs, and a loop has no runs"),
    ],
)
def test_runs_of_a_daemon_without_jobs_is_refused(
    manage_py: ManagePy, typed: list[str], shown: str
) -> None:
    said = manage_py("daemons", *typed)
    assert said == Said(2, "", f"CommandError: {shown}: what its ticks did is in the log\n")


def test_runs_of_a_daemon_whose_class_keeps_no_ledger_is_refused(project: Project) -> None:
    project.command(
        "silent",
        """
        from daemonkit import job

        class Command(BaseDaemonCommand):
            ledger = False

            @job(Every(seconds=60))
            def work(self): ...
        """,
    )
    ended = project.manage("daemons", "runs", "silent")
    assert ended.wait(20) == 2
    assert "silent has ledger = False in its class" in ended.stderr


def test_djangos_options_may_stand_before_the_action_or_behind_it(manage_py: ManagePy) -> None:
    options = ["--verbosity", "2", "--no-color", "--settings", "config.settings"]
    before = manage_py("daemons", *options, "next", "expire_baskets", "--hours", "0.099")
    after = manage_py("daemons", "next", "expire_baskets", "--hours", "0.099", *options)
    assert before.code == after.code == 0
    assert len(before.out.splitlines()) == len(after.out.splitlines()) == 12
    with pytest.raises(CommandError, match="there is no daemon 'nobody'"):
        manage_py("daemons", "next", "nobody", "--traceback")
