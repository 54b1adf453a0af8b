"""Small projects that a test writes, command by command, on top of the sample site."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest

from lab.processes import ROOT, Daemon
from tests.kit.processes import Manage

SITE = ROOT / "sample_site"


class Project:
    """A project in a folder: the shop, and an app ``depot`` with commands given as source text."""

    def __init__(self, folder: Path, manage: Manage) -> None:
        self.folder = folder
        self._manage = manage
        self._commands = folder / "depot" / "management" / "commands"
        self._commands.mkdir(parents=True)
        settings = "from config.settings import *\n\nINSTALLED_APPS += ['depot']\n"
        (folder / "depot_settings.py").write_text(settings)
        for package in (self._commands, self._commands.parent, self._commands.parent.parent):
            (package / "__init__.py").touch()

    def command(self, name: str, source: str) -> str:
        """Write a management command, after the imports that every daemon needs."""
        imports = "from daemonkit import BaseDaemonCommand, Cron, Every, Poll\n\n"
        (self._commands / f"{name}.py").write_text(imports + dedent(source).strip() + "\n")
        return name

    def module(self, path: str, source: str) -> None:
        """Write any other module, such as ``MySQLdb/__init__.py``: it hides an installed one."""
        (self.folder / path).parent.mkdir(exist_ok=True)
        (self.folder / path).write_text(dedent(source).strip() + "\n")

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for a process of this project."""
        paths = os.pathsep.join(map(str, (self.folder, ROOT)))
        return {"DJANGO_SETTINGS_MODULE": "depot_settings", "PYTHONPATH": paths}

    def manage(self, *arguments: str, cwd: Path | None = None, **env: str | None) -> Daemon:
        """Start ``manage.py`` with these arguments."""
        return self._manage(*arguments, env={**self.environment, **env}, cwd=cwd)


@pytest.fixture
def project(tmp_path: Path, manage: Manage) -> Project:
    return Project(tmp_path / "project", manage)
