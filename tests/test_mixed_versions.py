"""A deploy: processes of the last release and of this one run side by side on the new tables."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from lab.processes import ROOT, Daemon
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import LIVES, Manage, migrate
from tests.kit.sessions import notes

LAST_RELEASE = "9362278"
"""The commit of 0.1.0."""


@pytest.fixture(scope="module")
def last_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the last release."""
    folder = tmp_path_factory.mktemp("last-release")
    archive = subprocess.run(
        ["git", "archive", LAST_RELEASE], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
    return folder


class Deploy:
    """A server with the new tables, and daemons of both releases."""

    def __init__(self, manage: Manage, server: Server, last_release: Path) -> None:
        self._manage, self._last_release = manage, last_release
        self._env: dict[str, str | None] = {"DATABASE_URL": server.url}
        migrate(manage, server)

    def start_new(self, *arguments: str) -> Daemon:
        return self._manage("run_daemon", *arguments, manage_py=LIVES, env=self._env)

    def start_old(self, *arguments: str) -> Daemon:
        manage_py = self._last_release / LIVES.relative_to(ROOT)
        env = {**self._env, "PYTHONPATH": str(self._last_release)}
        return self._manage("run_daemon", *arguments, manage_py=manage_py, env=env)


@pytest.fixture
def deploy(manage: Manage, server: Server, last_release: Path) -> Deploy:
    return Deploy(manage, server, last_release)


def test_both_share_the_due_times_of_an_exclusive_job(deploy: Deploy, server: Server) -> None:
    old = deploy.start_old("racing")
    runs_of(old, server, 3)
    new = deploy.start_new("racing")
    new.wait_for("open", within=30)
    ran = len(notes(server))
    eventually(lambda: len(notes(server)) >= ran + 10, within=60)  # whoever claims them
    assert old.stop(within=30) == 0, old.output
    runs_of(new, server, 3)
    assert new.stop(within=30) == 0, new.output
    assert not [due for due, times in Counter(notes(server)).items() if times > 1]
    assert "ERROR" not in old.output + new.output


def runs_of(daemon: Daemon, server: Server, count: int) -> None:
    """Wait until a process has run this many due times."""
    pid = daemon.process.pid
    query = f"SELECT count(*) FROM daemonkit_run WHERE status = 'ran' AND pid = {pid}"
    eventually(lambda: server.execute(query)[0][0] >= count, within=60)


def leads(daemon: Daemon) -> None:
    daemon.wait_for("leads, epoch", within=30)
    daemon.wait_for(re.compile(r"^ticking \d"), within=30)


def test_one_of_both_leads_and_the_other_takes_over(deploy: Deploy) -> None:
    options = ("several", "--leader", "--job", "ticking")
    old = deploy.start_old(*options)
    leads(old)
    new = deploy.start_new(*options)
    new.wait_for("stands by", within=30)
    assert old.stop(within=30) == 0
    leads(new)
    old = deploy.start_old(*options)
    old.wait_for("stands by", within=30)
    assert new.stop(within=30) == 0
    leads(old)
    assert old.stop(within=30) == 0
