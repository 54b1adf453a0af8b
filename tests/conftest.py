"""Hooks of the whole suite, and the fixtures of tests/kit."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest

from daemonkit.testing import plugin
from tests.kit.aliases import MakeAlias, alias, between, setup
from tests.kit.processes import Live, Manage, live, manage
from tests.kit.projects import project
from tests.kit.servers import (
    MakeProxy,
    machine,
    mariadb,
    mariadb_server,
    postgres,
    postgres_server,
    proxy,
    server,
    used_servers,
)
from tests.kit.tables import database

__all__ = [
    "Live",
    "MakeAlias",
    "MakeProxy",
    "Manage",
    "alias",
    "between",
    "database",
    "live",
    "machine",
    "manage",
    "mariadb",
    "mariadb_server",
    "postgres",
    "postgres_server",
    "project",
    "proxy",
    "server",
    "setup",
    "used_servers",
]

IS_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin("daemonkit"):  # an installation from before its time
        config.pluginmanager.register(plugin, "daemonkit")
    config.addinivalue_line(
        "markers", "leaves_sessions: this test may leave sessions on its server, which are killed"
    )
    config.addinivalue_line(
        "markers", "one_python: slow, and another Python adds nothing; CI runs it on the newest one"
    )
    # A shell lets its background jobs ignore Ctrl-C, and all that they start would ignore it, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# With CI=true a skip is a failure: nothing may go untested unseen.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return refuse_skip(report) if not hasattr(report, "wasxfail") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return refuse_skip(report)


def refuse_skip(report: Report) -> Report:
    if IS_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure with CI=true: {report.longrepr}"
    return report
