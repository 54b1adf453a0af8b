"""systemctl, for the system's manager or the user's own manager."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from django.core.management.base import CommandError

from daemonkit.exits import Exit

OLDEST_VERSION = 247
"""The oldest version of systemd that the templates support."""


def refused(sentence: str) -> CommandError:
    """Return the error for what this machine does not allow or cannot do: exit code 1."""
    return CommandError(sentence, returncode=Exit.TICK_FAILED)


def systemd_version() -> int:
    """Return the version of this machine's systemd; the oldest supported one if it has none."""
    if systemctl := shutil.which("systemctl"):
        asked = subprocess.run(
            [systemctl, "--version"], capture_output=True, text=True, check=False
        )
        if found := re.match(r"systemd (\d+)", asked.stdout):
            return int(found[1])
    return OLDEST_VERSION


class Systemctl:
    """Runs systemctl. If it fails, raises ``CommandError`` with systemd's message."""

    def __init__(self, *, user_manager: bool) -> None:
        self._user_manager = user_manager

    @property
    def is_there(self) -> bool:
        """Whether systemd runs on this machine."""
        return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None

    def __call__(self, *arguments: str, within: float | None = 60.0) -> None:
        """Run a command. Raises ``subprocess.TimeoutExpired`` after ``within`` seconds."""
        done = self.ask(*arguments, within=within)
        if done.returncode:
            raise refused(f"systemctl {arguments[0]}: {error_text(done)}")

    def is_(self, question: str, unit: str) -> bool:
        """Return the answer to "is-active" or "is-enabled"."""
        return self.ask(question, "--quiet", unit).returncode == 0

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit; "" for those that it does not have."""
        done = self.ask("show", f"--property={','.join(properties)}", unit)
        found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        return {name: found.get(name, "") for name in properties}

    def hint(self, verb: str, *units: str) -> str:
        """Return the command as a user would type it."""
        user = " --user" if self._user_manager else ""
        return f"systemctl{user} {verb} {' '.join(units)}"

    def ask(self, *arguments: str, within: float | None = 60.0) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ)
        command = ["systemctl", "--no-pager"]
        if self._user_manager:
            environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
            command.append("--user")
        return subprocess.run(
            [*command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )


def error_text(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error message of a command that failed."""
    return " ".join((done.stderr or done.stdout).split()) or f"code {done.returncode}"
