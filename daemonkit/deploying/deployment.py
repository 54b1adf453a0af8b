"""A deployment: where a project is on a machine, and as whom its daemons run."""

from __future__ import annotations

from dataclasses import dataclass

from daemonkit.deploying.quoting import one_line
from daemonkit.deploying.systemctl import OLDEST_VERSION


@dataclass(frozen=True)
class Deployment:
    """Where a project is on this machine, and as whom its daemons run.

    ``folder``
        That of ``manage.py``, as somebody wrote it: it may lead through a link such as ``current``.
    ``program``
        What starts the project's commands there: an interpreter and its arguments.
    ``user``
        A user of the machine, or "" for one that systemd makes up.
    ``environment_file``
        Its path, or "" for none.
    ``python_path``
        Where the project's modules are besides, or "".
    ``version``
        Of systemd; what is rendered for an older one runs under a newer one, too.
    """

    project: str
    folder: str
    program: tuple[str, ...]
    settings: str
    user: str = ""
    environment_file: str = ""
    python_path: str = ""
    user_manager: bool = False
    version: int = OLDEST_VERSION

    @property
    def target(self) -> str:
        return f"{self.project}-daemons.target"

    def unit(self, daemon: str) -> str:
        """The name of a daemon's unit; it says of which project."""
        return f"{self.project}-{daemon}.service"

    @property
    def mark(self) -> str:
        """The first line of the units that are ours to overwrite."""
        return f"# Written by daemonkit for the project in {one_line(self.folder)}"

    @property
    def account(self) -> str:
        """The user that systemd makes up."""
        return f"{self.project[:22].replace('.', '_')}-daemons"
