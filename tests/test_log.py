"""The log of a long outage, and of a service that is restarted again and again."""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from daemonkit import BaseDaemonCommand, Every
from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.listeners.log import Log
from daemonkit.listeners.starts import starts_text, starts_within_the_hour
from daemonkit.listeners.status_line import Line


class Failing(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self) -> None: ...


def failed(at: float, text: str = "no answer", kind: type[Exception] = OSError) -> Iteration:
    try:
        raise kind(text)
    except Exception as error:
        moment = Moment(at, at)
        return Iteration(1, moment, moment, 0.0)._replace(error=error, failures=1)


@pytest.fixture
def log() -> Log:
    return Log(Failing(), verbosity=1)


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[bool]:
    return [record.exc_info is not None for record in caplog.records]


def test_a_traceback_is_logged_at_first_and_then_once_a_minute_with_a_count(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds in range(0, 130, 10):
        log.failed(failed(float(seconds), f"no answer at {seconds}"))
    shown = [seconds for seconds, is_shown in enumerate(tracebacks(caplog)) if is_shown]
    assert shown == [0, 6, 12]
    assert "OSError: no answer at 50" in caplog.records[5].getMessage()
    assert "(one traceback for 6 such failures)" in caplog.records[6].getMessage()
    assert "such failures" not in caplog.records[0].getMessage()


def test_a_failure_of_another_kind_has_its_traceback_at_once(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in (OSError, ValueError, OSError, ValueError):
        log.failed(failed(0.0, kind=kind))
    assert tracebacks(caplog) == [True, True, False, False]


def test_each_job_has_tracebacks_of_its_own(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    for job in ("report", "refresh", "report"):
        log.failed(failed(0.0)._replace(job=job))
    assert tracebacks(caplog) == [True, True, False]


def test_the_number_of_remembered_kinds_is_limited(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        log.failed(failed(0.0, kind=type(f"Error{number}", (Exception,), {})))
    assert all(tracebacks(caplog))


# Starts


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment that systemd gives to a service with a StateDirectory."""
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}:/nowhere")
    monkeypatch.setenv("INVOCATION_ID", uuid.uuid4().hex)
    return monkeypatch


def test_starts_are_counted_and_reloads_are_not(service: pytest.MonkeyPatch) -> None:
    assert starts_within_the_hour("sync") == 1
    assert starts_within_the_hour("sync") == 1  # a reload keeps the invocation's id
    assert starts_text("sync") == ""
    service.setenv("INVOCATION_ID", uuid.uuid4().hex)
    assert starts_within_the_hour("another") == 1
    assert starts_text("sync") == "started 2 times within the hour"


def test_starts_of_more_than_an_hour_ago_are_forgotten(
    service: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sync.starts.json").write_text('{"old": 1000.0}')
    assert starts_within_the_hour("sync") == 1


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": "b"}', "null", "\udc80"])
def test_an_invalid_file_is_overwritten(
    service: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    (tmp_path / "sync.starts.json").write_bytes(os.fsencode(text))
    assert starts_within_the_hour("sync") == 1


def test_starts_are_not_counted_without_a_state_directory(
    service: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service.setenv("STATE_DIRECTORY", str(tmp_path / "gone"))
    assert starts_text("sync") == ""
    service.delenv("STATE_DIRECTORY")
    assert starts_within_the_hour("sync") == 0


def test_the_first_line_and_the_status_say_how_often_it_was_started(
    service: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    messages: list[Any] = []
    with caplog.at_level(logging.INFO, logger="daemonkit"):
        for _ in range(2):
            service.setenv("INVOCATION_ID", uuid.uuid4().hex)
            call_command(Failing(), max_ticks=1)
        messages = [
            each.getMessage() for each in caplog.records if " started: " in each.getMessage()
        ]
    assert messages == [
        "test_log started: every 1s",
        "test_log started: every 1s (started 2 times within the hour)",
    ]
    line = Line()
    line.starts = starts_text("test_log")
    assert str(line) == "starts; started 2 times within the hour"
    line.override = "4 of 4 workers"
    assert str(line) == "4 of 4 workers; started 2 times within the hour"
