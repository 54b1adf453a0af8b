"""The examples of docs/testing.md are run as a project's own tests, on each database."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.processes import ROOT, child_environment
from lab.servers import Server

pytestmark = pytest.mark.one_python

PAGE = ROOT / "docs" / "testing.md"
SETTINGS = """
from config.settings import *

DATABASES["default"]["TEST"] = {"NAME": "TEST_NAME"}
TASKS = {"default": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"}}
"""
PLUGIN = """
import pytest

from daemonkit.testing import plugin


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if not config.pluginmanager.has_plugin("daemonkit"):
        config.pluginmanager.register(plugin, "daemonkit")
"""


def examples() -> dict[str, str]:
    blocks = re.findall(r"^```python\n# (tests/\w+\.py)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return dict(blocks)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose tests are the examples of the page."""
    for name, code in examples().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "conftest.py").write_text(PLUGIN)
    (tmp_path / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = page_settings\n")
    return tmp_path


def run(project: Path, url: str, test_name: str, *arguments: str) -> str:
    (project / "page_settings.py").write_text(SETTINGS.replace("TEST_NAME", test_name))
    paths = f"{project}:{ROOT}:{ROOT / 'sample_site'}"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=child_environment({"PYTHONPATH": paths, "DATABASE_URL": url}),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_part_of_the_page_has_an_example() -> None:
    assert len(examples()) == 6


def test_the_examples_pass_on_a_server(project: Path, server: Server) -> None:
    server.drop_database("test_page")
    server.create_database("page")
    try:
        url = server.url_through(server.port, "page")
        run(project, url, "page", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--create-db")
    finally:
        server.drop_database("page")


def test_the_examples_pass_on_sqlite_side_by_side(project: Path) -> None:
    url = f"sqlite:///{project / 'page.sqlite3'}"
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2")
    assert "passed" in run(project, url, str(project / "test.sqlite3"), *arguments)


def test_those_that_need_no_pytest_pass_under_djangos_own_runner(project: Path) -> None:
    url = f"sqlite:///{project / 'page.sqlite3'}"
    manage = str(ROOT / "sample_site" / "manage.py")
    output = run(
        project,
        url,
        ":memory:",
        manage,
        "test",
        "--settings",
        "page_settings",
        "tests.test_housekeeping",
    )
    assert "Ran 2 tests" in output
