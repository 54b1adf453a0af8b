"""Whether the user that systemd makes up may enter the folders that a daemon needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from daemonkit.deploying.deployment import Deployment


class ClosedFolder(NamedTuple):
    """A folder that only its owner may enter, and what is in it that a daemon needs."""

    folder: str
    needed: str
    mend: str

    def __str__(self) -> str:
        return (
            f"{self.folder} may not be entered by the user that systemd makes up, and "
            f"{self.needed} is in it: {self.mend}, or say --as USER"
        )


class _Needed(NamedTuple):
    path: str
    what: str
    mend: str


def closed_folder(deployment: Deployment) -> ClosedFolder | None:
    """The first folder in the way of a made-up user, if there is one."""
    if deployment.user or deployment.user_manager:
        return None
    for needed in _needed(deployment):
        for folder in reversed(Path(os.path.realpath(needed.path)).parents):
            if not folder.stat().st_mode & 0o001:
                return ClosedFolder(str(folder), needed.what, needed.mend)
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
