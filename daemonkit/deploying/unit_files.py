"""The unit files of a project: which ones daemonkit wrote, and whether they can be changed."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.systemctl import Systemctl, error_text, refused

SYSTEM_UNITS = Path("/etc/systemd/system")


class UnitFiles:
    """The unit files of one systemd manager, the system's or the user's own.

    Raises ``CommandError`` with one sentence and exit code 1 if an action is not allowed or fails.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.systemctl = Systemctl(user_manager=deployment.user_manager)
        self.folder = _user_units() if deployment.user_manager else SYSTEM_UNITS

    def path(self, unit: str) -> Path:
        return self.folder / unit

    def read(self, unit: str) -> str | None:
        """Return the text of a unit; None if there is no such file."""
        path = self.path(unit)
        try:
            return path.read_text(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise refused(f"{path} cannot be read: {error.strerror}") from error

    def write(self, unit: str, text: str) -> None:
        path = self.path(unit)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise refused(f"{path} cannot be written: {error.strerror}") from error

    def remove(self, unit: str) -> None:
        path = self.path(unit)
        try:
            path.unlink()
        except OSError as error:
            raise refused(f"{path} cannot be removed: {error.strerror}") from error

    def ours(self) -> list[str]:
        """Return the services that were installed for this project."""
        found = self.folder.glob(f"{self.deployment.project}-*.service")
        return sorted(path.name for path in found if self._is_ours(self.read(path.name)))

    def _is_ours(self, text: str | None) -> bool:
        return text is not None and text.startswith(f"{self.deployment.mark}\n")

    # Refusals

    def require_systemd(self, otherwise: str = "") -> None:
        """Refuse a machine without systemd, or with a manager that does not answer."""
        if not self.systemctl.is_there:
            raise refused(f"systemd does not run on this machine{otherwise}")
        done = self.systemctl.ask("show", "--property=Version")
        if not done.returncode:
            return
        message = error_text(done)
        if not self.deployment.user_manager:
            raise refused(f"systemd does not answer: {message}")
        user = pwd.getpwuid(os.getuid()).pw_name
        raise refused(
            f"the systemd of the user {user} does not answer ({message}): log in as {user}, or "
            f"keep it running with `loginctl enable-linger {user}`"
        )

    def refuse_foreign(self, units: Iterable[str], how_to_fix: str) -> None:
        """Refuse files that were not written for this project."""
        for unit in units:
            text = self.read(unit)
            if text is None or self._is_ours(text):
                continue
            is_of_daemonkit = text.startswith(self.deployment.mark.partition(" project in ")[0])
            reason = "is of another project" if is_of_daemonkit else "was not written by daemonkit"
            raise refused(f"{self.path(unit)} {reason}, and stays unchanged: {how_to_fix}")

    def refuse_closed_folder(self) -> None:
        """Refuse a folder to which this user has no permission to write."""
        there = next(
            each for each in (self.folder, *self.folder.parents) if os.access(each, os.F_OK)
        )
        if os.access(there, os.W_OK | os.X_OK):
            return
        how_to_fix = "use sudo, or --user for your own systemd manager"
        if self.deployment.user_manager:
            how_to_fix = "set HOME or XDG_CONFIG_HOME to a folder of your own"
        raise refused(f"no permission to write to {there}: {how_to_fix}")


def _user_units() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "systemd" / "user"
