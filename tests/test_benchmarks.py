"""The benchmarks and the demo still run; what the benchmarks measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lab.processes import ROOT, child_environment
from lab.redis_server import Redis
from lab.servers import MariaDB, PostgreSQL
from lab.servers.base import is_installed

pytestmark = pytest.mark.one_python

# A table's title in `python -m benchmarks`, and how many rows it has where nothing is missing.
TABLES = {
    "A tick of one SELECT 1 on MariaDB over a socket": 6,
    "A tick of one SELECT 1 on MariaDB over TCP": 6,
    "A tick of one SELECT 1 on PostgreSQL over a socket": 6,
    "Nothing to do": 7,
    "Start, and memory when idle": 3,
    "SIGTERM when idle": 4,
    "Processor time": 1,
    "Jobs of one second, 10 in one process, due at once": 6,
    "while idle: MariaDB, KILL": 6,
    "while idle: MariaDB, wait_timeout": 6,
    "while idle: PostgreSQL, pg_terminate_backend": 6,
    "while idle: PostgreSQL, idle_session_timeout": 6,
    "while idle: PostgreSQL with Django's pool, pg_terminate_backend": 2,
    "What a lease costs on MariaDB": 5,
    "What a lease costs on PostgreSQL": 5,
    "From the end of a leader on MariaDB": 2,
    "From the end of a leader on PostgreSQL": 2,
    "ticks; one in ten fails": 3,
    "Memory of workers": 4,
    "Draining a queue on MariaDB": 8,
    "Draining a queue on PostgreSQL": 8,
    "From a worker's SIGKILL": 3,
}


def run(*arguments: str, within: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


def need(*kinds: type[MariaDB | PostgreSQL]) -> None:
    for kind in kinds:
        if reason := kind.why_missing():
            pytest.skip(reason)
    if not is_installed("MySQLdb"):
        pytest.skip("mysqlclient, Django's driver for MariaDB, is not installed.")


def test_a_quick_run_prints_every_row_and_no_lost_session_costs_a_tick() -> None:
    need(MariaDB, PostgreSQL)
    if reason := Redis.why_missing():
        pytest.skip(reason)
    done = run("benchmarks", "--quick", within=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    paragraphs = done.stdout.split("\n\n")
    for title, rows in TABLES.items():
        found = [lines for lines in map(str.splitlines, paragraphs) if title in lines[0]]
        assert len(found) == 1, f"{title}: not in\n{done.stdout}"
        assert len(found[0]) == 2 + rows, found[0]  # the title, the names of the columns, rows
        if "while idle" in title:
            assert all(row.endswith(" met") for row in found[0][2:]), done.stdout
    assert "targets met" in done.stdout
    for part in ("ticks", "jobs", "workers"):
        found = json.loads((ROOT / ".benchmarks" / f"{part}-quick.json").read_text())
        assert found["tables"][0]["rows"], found
        assert any(version.startswith("Django ") for version in found["versions"])


def test_the_demo_comes_out_as_the_story_goes_within_a_minute() -> None:
    need(MariaDB)
    done = run("demo", within=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(2006, " in done.stdout
    assert "daemonkit: 0 of 10 ticks failed" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
