"""Where a project is, and how its commands are started."""

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
"""Names that say nothing about the project: its name is that of a folder further up."""


def project_folder(argv0: str, module: str = "") -> tuple[str, tuple[str, ...]]:
    """Return the folder in which the project's commands are started, and the command.

    The command is the script that runs now, or the ``module`` that was started by ``python -m``.
    Raises ``ValueError`` with one sentence for a script that Python cannot run.
    """
    base = working_folder() or os.getcwd()  # noqa: PTH109
    script = Path(argv0)
    if script.name == "django-admin":
        module = "django"
    if module:
        return base, (_interpreter(base), "-m", module)
    if not _is_like_manage_py(script):
        raise ValueError(
            f"{argv0} is not a script that Python can run like manage.py: use "
            f"`python manage.py daemons ...`, or `python -m django` in the project's folder"
        )
    folder = Path(base) / script.parent
    if ".." in script.parts:
        folder = folder.resolve()
    return str(folder), (_interpreter(str(folder)), script.name)


def _is_like_manage_py(script: Path) -> bool:
    """Whether this file, whatever its name, is a Python script that calls Django's commands."""
    if not script.is_file():
        return False
    return script.suffix == ".py" or b"execute_from_command_line" in script.read_bytes()


def python_path(value: str) -> str:
    """Return $PYTHONPATH with absolute paths."""
    base = working_folder() or os.getcwd()  # noqa: PTH109
    folders = [str(Path(base) / part) for part in value.split(os.pathsep)] if value else []
    return os.pathsep.join(folders)


def _interpreter(folder: str) -> str:
    """Return the path of this Python. If it is in the folder, the path begins as the folder was
    given, with its links."""
    real = os.path.realpath(folder)
    if sys.executable.startswith(f"{real}/"):
        return folder + sys.executable[len(real) :]
    return sys.executable


def project_name(folder: str) -> str:
    """Return the project's name: the folder's, or that of the next one up if it is generic."""
    for part in reversed(Path(folder).parts[1:]):
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-.")
        if name and part.lower() not in _GENERIC:
            return name if name[0].isalpha() else f"project-{name}"
    return "project"
