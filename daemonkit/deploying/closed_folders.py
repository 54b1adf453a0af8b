"""Whether the user that systemd creates can enter the folders that a daemon needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from daemonkit.deploying.deployment import Deployment


class ClosedFolder(NamedTuple):
    """A folder that other users cannot enter, although a daemon needs something in it."""

    folder: str
    needed: str
    how_to_fix: str

    def __str__(self) -> str:
        return (
            f"the user that systemd creates cannot enter {self.folder}, and {self.needed} is in "
            f"it: {self.how_to_fix}, or use --as USER"
        )


class _Needed(NamedTuple):
    path: str
    name: str
    how_to_fix: str


def closed_folder(deployment: Deployment) -> ClosedFolder | None:
    """Return the first folder that the user which systemd creates cannot enter, if any."""
    if deployment.user or deployment.user_manager:
        return None
    for needed in _needed(deployment):
        for folder in reversed(Path(os.path.realpath(needed.path)).parents):
            if not folder.stat().st_mode & 0o001:
                return ClosedFolder(str(folder), needed.name, needed.how_to_fix)
    return None


def _needed(deployment: Deployment) -> Iterator[_Needed]:
    folder, interpreter = deployment.folder, deployment.program[0]
    open_it = "open it to all (chmod o+x), move {}"
    yield _Needed(f"{folder}/manage.py", f"the project, {folder},", open_it.format("the project"))
    yield _Needed(interpreter, f"the interpreter, {interpreter},", open_it.format("it"))
    yield _Needed(
        f"{sys.base_prefix}/bin",
        f"Python, {sys.base_prefix},",
        "install Python for all users, such as under /usr or /opt",
    )
    for each in deployment.python_path.split(os.pathsep):
        if Path(each).is_dir():
            yield _Needed(f"{each}/*", f"{each}, of $PYTHONPATH,", open_it.format("it"))
