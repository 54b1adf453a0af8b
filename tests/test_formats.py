"""What the log looks like: in the journal, as JSON, anywhere else."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemonkit.formats import AsJSON, ForJournal, formatter_for, leads_to_journal
from lab.processes import MANAGE_PY, child_environment
from tests.kit.projects import Project

FAILING = """
class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self):
        raise ValueError("for a reason,\\n\\nof two lines")
"""


def record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord("daemonkit", level, "x.py", 1, text, (), None)


@pytest.mark.parametrize(
    ("level", "mark"),
    [
        (logging.DEBUG, "<7>"),
        (logging.INFO, "<6>"),
        (logging.WARNING, "<4>"),
        (logging.ERROR, "<3>"),
        (logging.CRITICAL, "<2>"),
    ],
)
def test_the_journal_gets_the_level_of_each_line_and_no_empty_ones(level: int, mark: str) -> None:
    text = ForJournal().format(record(level, "one\n\n  two"))
    assert text == f"{mark}one\n{mark}  two"
    assert ForJournal().format(record(level, "")) == mark


def test_a_format_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="there is no log format 'xml': it is one of auto, plain"):
        formatter_for("xml", sys.stderr)


RunWithJournal = Callable[..., str]


@pytest.fixture
def with_journal(tmp_path: Path) -> RunWithJournal:
    """A daemon whose stderr is a pipe of which $JOURNAL_STREAM says that it is the journal's."""

    def run(*arguments: str, stream: str = "", **env: str) -> str:
        reader, writer = os.pipe()
        status = os.fstat(writer)
        own = {"JOURNAL_STREAM": stream or f"{status.st_dev}:{status.st_ino}", **env}
        database = {"DATABASE_URL": f"sqlite:///{tmp_path / 'site.sqlite3'}"}
        subprocess.run(
            [sys.executable, str(MANAGE_PY), *arguments],
            env=child_environment({**database, **own}),
            stderr=writer,
            stdout=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        os.close(writer)
        with os.fdopen(reader) as output:
            return output.read()

    return run


ONE_TICK = ("run_daemon", "time.time", "--every", "1s", "--max-ticks", "1")


def test_a_daemon_whose_stderr_is_the_journal_writes_for_it(with_journal: RunWithJournal) -> None:
    assert with_journal(*ONE_TICK) == (
        "<6>time.time started: every 1s\n<6>time.time stopped: max_ticks of 1 reached\n"
    )


UNKNOWN = ("run_daemon", "nope")
REFUSED = ("run_daemon", "time.time", "--every", "1h", "--max-failures", "0")
MISUSED = ("import_prices", "--every", "1h", "--cron", "* * * * *")


@pytest.mark.parametrize("arguments", [UNKNOWN, REFUSED, MISUSED])
def test_the_sentence_with_which_a_process_ends_is_an_error_in_the_journal(
    with_journal: RunWithJournal, arguments: tuple[str, ...]
) -> None:
    *_, last = with_journal(*arguments).splitlines()
    assert last.startswith("<3>CommandError: ")


@pytest.mark.parametrize("arguments", [UNKNOWN, REFUSED, MISUSED])
def test_the_sentence_with_which_a_process_ends_is_an_object_among_the_others(
    with_journal: RunWithJournal, arguments: tuple[str, ...]
) -> None:
    *_, last = with_journal(*arguments, "--log-format=json").splitlines()
    ended = json.loads(last)
    assert ended["level"] == "ERROR"
    assert ended["message"].startswith("CommandError: ")


def test_so_is_that_of_a_worker(project: Project) -> None:
    project.command("refused", """
        class Command(BaseDaemonCommand):
            schedule = Poll(idle=60)

            def lifespan(self):
                from django.core.exceptions import ImproperlyConfigured
                raise ImproperlyConfigured("no such thing")

            def tick(self): ...
        """)  # fmt: skip
    options = ("--workers", "2", "--log-format", "json")
    daemon = project.manage("run_daemon", "refused", *options)
    assert daemon.wait(20) == 78
    lines = [json.loads(line) for line in daemon.stderr.splitlines()]
    (said, *_) = [line for line in lines if line["message"].startswith("CommandError: ")]
    assert said["message"] == "CommandError: no such thing"
    assert (said["level"], said["daemon"]) == ("ERROR", "refused")
    assert said["worker"].startswith("refused.")


@pytest.mark.parametrize("stream", ["1:2", "nonsense", "8:1048576:3"])
def test_the_variable_alone_does_not_make_a_journal(
    with_journal: RunWithJournal, stream: str
) -> None:
    assert " INFO time.time started: every 1s" in with_journal(*ONE_TICK, stream=stream)


def test_an_option_goes_before_what_stderr_is(with_journal: RunWithJournal) -> None:
    assert " INFO time.time" in with_journal(*ONE_TICK, "--log-format", "plain")


def test_a_stream_without_a_descriptor_is_no_journal() -> None:
    class Stream:
        def fileno(self) -> int:
            raise OSError("none")

    assert not leads_to_journal(Stream())  # type: ignore[arg-type]


def test_elsewhere_a_traceback_stands_below_its_line(project: Project) -> None:
    project.command("failing", FAILING)
    daemon = project.manage("run_daemon", "failing", "--max-ticks", "1")
    assert daemon.wait(20) == 0
    lines = daemon.stderr.splitlines()
    assert "ERROR failing tick 1 failed after" in lines[1]
    assert lines[2] == "Traceback (most recent call last):"


def test_json_is_one_object_a_line_with_all_facts(project: Project) -> None:
    project.command("failing", FAILING)
    daemon = project.manage("run_daemon", "failing", "--max-ticks", "1", "--log-format", "json")
    assert daemon.wait(20) == 0
    started, failed, stopped = [json.loads(line) for line in daemon.stderr.splitlines()]
    assert started["message"] == "failing started: every 1s"
    assert (started["level"], started["daemon"], started["tick"]) == ("INFO", "failing", None)
    facts = ("daemon", "job", "tick", "outcome", "level")
    assert [failed[name] for name in facts] == ["failing", None, 1, "failed", "ERROR"]
    assert 0 <= failed["seconds"] < 5
    assert failed["traceback"].startswith("Traceback (most recent call last):\n")
    assert failed["time"].endswith("+00:00")
    assert stopped["outcome"] is None


def test_json_says_of_a_good_tick_that_it_succeeded(project: Project) -> None:
    options = ("--every", "1s", "--max-ticks", "1", "--log-format", "json", "-v", "2")
    daemon = project.manage("run_daemon", "time.time", *options)
    assert daemon.wait(20) == 0
    tick = json.loads(daemon.stderr.splitlines()[1])
    assert (tick["daemon"], tick["tick"], tick["outcome"]) == ("time.time", 1, "succeeded")


def test_a_project_that_configures_its_own_logging_may_use_the_formatters(
    project: Project,
) -> None:
    project.command("failing", FAILING)
    project.module(
        "logged_settings.py",
        """
        from depot_settings import *

        LOGGING = {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": "daemonkit.formats.AsJSON"}},
            "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["console"], "level": "INFO"},
        }
        """,
    )
    daemon = project.manage(
        *("run_daemon", "failing", "--max-ticks", "1"), DJANGO_SETTINGS_MODULE="logged_settings"
    )
    assert daemon.wait(20) == 0
    started, failed, _ = [json.loads(line) for line in daemon.stderr.splitlines()]
    assert (started["daemon"], failed["tick"]) == ("failing", 1)


def test_a_supervisor_and_its_workers_write_in_the_format_that_was_said(project: Project) -> None:
    project.command("failing", FAILING.replace("Every(seconds=1)", "Poll(idle=60)"))
    options = ("--workers", "2", "--max-ticks", "1", "--log-format", "json")
    daemon = project.manage("run_daemon", "failing", *options)
    daemon.wait_for('"outcome": "failed"', within=20, count=2)
    daemon.stop()
    lines = [json.loads(line) for line in daemon.stderr.splitlines()]
    assert lines[0]["message"].startswith("supervisor of failing (2 workers) started")
    assert len([line for line in lines if line["outcome"] == "failed"]) >= 2


def test_an_unknown_format_on_the_command_line_is_one_sentence(project: Project) -> None:
    daemon = project.manage("run_daemon", "time.time", "--every", "1s", "--log-format", "xml")
    assert daemon.wait(20) == 2
    assert "argument --log-format: invalid choice: 'xml'" in daemon.stderr


def test_json_takes_whatever_a_record_carries() -> None:
    odd = record(logging.INFO, "öde\nzeile")
    odd.__dict__["tick"] = object()
    assert json.loads(AsJSON().format(odd))["message"] == "öde\nzeile"
