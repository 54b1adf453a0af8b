"""Where a project is, and how its commands are started there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from daemonkit.process.origin import working_folder

_GENERIC = {
    "app", "bin", "code", "current", "django", "htdocs", "project", "release", "repo", "scripts",
    "src",
}  # fmt: skip
"""Folders that say nothing about the project in them: the one above does."""


def project_folder(argv0: str, module: str = "") -> tuple[str, tuple[str, ...]]:
    """The folder in which the project's commands are started, and how: by the same script, or the
    same ``module`` if it runs by ``python -m``.

    Raises ``ValueError``, in one sentence, for a script that nobody knows how to start.
    """
    base = working_folder() or os.getcwd()  # noqa: PTH109
    script = Path(argv0)
    if script.name == "django-admin":
        module = "django"
    if module:
        return base, (_interpreter(base), "-m", module)
    if not _is_like_manage_py(script):
        raise ValueError(
            f"{argv0} is no script that Python runs as it does manage.py: say it by "
            f"`python manage.py daemons ...`, or in the project's folder by `python -m django`"
        )
    folder = Path(base) / script.parent
    if ".." in script.parts:
        folder = folder.resolve()
    return str(folder), (_interpreter(str(folder)), script.name)


def _is_like_manage_py(script: Path) -> bool:
    """Whether Python runs this file, whatever its name, to hand its arguments to Django."""
    if not script.is_file():
        return False
    return script.suffix == ".py" or b"execute_from_command_line" in script.read_bytes()


def python_path(said: str) -> str:
    """$PYTHONPATH with the folders that it names written in full."""
    base = working_folder() or os.getcwd()  # noqa: PTH109
    folders = [str(Path(base) / part) for part in said.split(os.pathsep)] if said else []
    return os.pathsep.join(folders)


def _interpreter(folder: str) -> str:
    """This Python, by way of the same links as the folder if it lies in there."""
    real = os.path.realpath(folder)
    if sys.executable.startswith(f"{real}/"):
        return folder + sys.executable[len(real) :]
    return sys.executable


def project_name(folder: str) -> str:
    """A name for the project in a folder: the folder's, or that of the first above that says
    something."""
    for part in reversed(Path(folder).parts[1:]):
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-.")
        if name and part.lower() not in _GENERIC:
            return name if name[0].isalpha() else f"project-{name}"
    return "project"
