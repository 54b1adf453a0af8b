"""A deployment: where a project is on a machine, and which user runs its daemons."""

from __future__ import annotations

from dataclasses import dataclass

from daemonkit.deploying.quoting import one_line
from daemonkit.deploying.systemctl import OLDEST_VERSION


@dataclass(frozen=True)
class Deployment:
    """Where a project is on this machine, and which user runs its daemons.

    ``folder``
        The folder of ``manage.py`` as it was given: it may contain a link such as ``current``.
    ``program``
        The command that starts the project's commands there: an interpreter and its arguments.
    ``user``
        An existing user of the machine, or "" for one that systemd creates (``DynamicUser=``).
    ``environment_file``
        Its path, or "" for none.
    ``python_path``
        Further folders with modules of the project, or "".
    ``version``
        The version of systemd. Units for an older version run under a newer one, too.
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
        """Return the name of a daemon's unit, which begins with the project's name."""
        return f"{self.project}-{daemon}.service"

    @property
    def mark(self) -> str:
        """The first line of each unit that daemonkit may overwrite."""
        return f"# Written by daemonkit for the project in {one_line(self.folder)}"

    @property
    def account(self) -> str:
        """The name of the user that systemd creates."""
        return f"{self.project[:22].replace('.', '_')}-daemons"
