"""Putting a project's units where systemd reads them, and having it start them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from django.core.management.base import CommandError

from daemonkit.deploying.units import Deployment
from daemonkit.exits import Exit

SYSTEM_UNITS = Path("/etc/systemd/system")
PATIENCE = 15.0
"""Seconds for which the start of the daemons is watched; they may wait for a database."""


class Installation:
    """Units for one of systemd's managers, the system's or the user's own.

    Every step raises ``CommandError`` with one sentence and exit code 1 for what it may not or
    cannot do. ``say`` is told what was done.
    """

    def __init__(
        self, deployment: Deployment, units: Mapping[str, str], say: Callable[[str], object]
    ) -> None:
        self.deployment = deployment
        self.units = units
        self.say = say
        self.folder = _user_units() if deployment.user_manager else SYSTEM_UNITS

    def rehearse(self) -> None:
        """Say what would be done, and do nothing; or refuse what ``install`` would refuse."""
        self._may_it()
        for name, text in self.units.items():
            path = self.folder / name
            verb = {None: "would write", text: "would leave"}.get(_read(path), "would overwrite")
            self.say(f"{verb} {path}\n\n{text}")
        self.say(f"would have systemd enable and start {', '.join(self.units)}")

    def install(self) -> None:
        """Write, enable and start what is not yet written, enabled and running."""
        self._may_it()
        self._make_folder()
        written = [name for name, text in self.units.items() if self._write(name, text)]
        if written:
            self._systemctl("daemon-reload")
        disabled = [name for name in self.units if not self._is("is-enabled", name)]
        if disabled:
            self._systemctl("enable", *disabled)
            self.say(f"enabled {', '.join(disabled)}")
        running = [name for name in self.units if self._is("is-active", name)]
        services = [name for name in written if name in running and name.endswith(".service")]
        if services:
            self._start("restart", services)
        if missing := [name for name in self.units if name not in running]:
            self._start("start", missing)
        if not written and not disabled and not missing:
            self.say("nothing to do: all is written, enabled and running")

    def _may_it(self) -> None:
        """Find what is in the way before anything is written."""
        if not Path("/run/systemd/system").is_dir() or not shutil.which("systemctl"):
            raise _refused(
                "systemd does not run on this machine; `daemons unit NAME` prints the unit for one "
                "where it does"
            )
        self._refuse_a_silent_manager()
        self._refuse_foreign_units()
        self._refuse_a_closed_folder()

    def _refuse_a_closed_folder(self) -> None:
        there = next(
            each for each in (self.folder, *self.folder.parents) if os.access(each, os.F_OK)
        )
        if os.access(there, os.W_OK | os.X_OK):
            return
        mend = "run it with sudo, or with --user for the manager of your own"
        if self.deployment.user_manager:
            mend = "let HOME, or XDG_CONFIG_HOME, be a folder of your own"
        raise _refused(f"no right to write to {there}: {mend}")

    def _refuse_a_silent_manager(self) -> None:
        done = self._run("show", "--property=Version")
        if done.returncode:
            said = _words_of(done)
            if not self.deployment.user_manager:
                raise _refused(f"systemd does not answer: {said}")
            user = pwd.getpwuid(os.getuid()).pw_name
            raise _refused(
                f"the systemd of the user {user} does not answer ({said}): log in as {user}, or "
                f"have it run always, by `loginctl enable-linger {user}`"
            )

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(f"{self.folder} cannot be made: {error.strerror}") from error

    def _refuse_foreign_units(self) -> None:
        for name in self.units:
            path = self.folder / name
            text = _read(path)
            if text is not None and not text.startswith(f"{self.deployment.mark}\n"):
                theirs = text.startswith(self.deployment.mark.partition(" project in ")[0])
                by_whom = "for another project" if theirs else "by somebody else"
                raise _refused(
                    f"{path} was written {by_whom}, and is left alone: remove it, or say "
                    f"--project NAME"
                )
            if text is None and (other := self._found_elsewhere(name)):
                raise _refused(f"there is a unit {name} already, {other}: say --project NAME")

    def _found_elsewhere(self, name: str) -> str:
        asked = self._run("show", "--property=FragmentPath", "--value", name)
        return asked.stdout.strip()

    def _write(self, name: str, text: str) -> bool:
        path = self.folder / name
        if (before := _read(path)) == text:
            return False
        try:
            path.write_text(text)
        except OSError as error:
            raise _refused(f"{path} cannot be written: {error.strerror}") from error
        self.say(f"{'wrote' if before is None else 'overwrote'} {path}")
        return True

    def _start(self, verb: str, units: list[str]) -> None:
        try:
            self._systemctl(verb, *units, within=PATIENCE)
        except subprocess.TimeoutExpired:
            services = [name for name in units if name.endswith(".service")]
            waiting = [name for name in services if not self._is("is-active", name)]
            self.say(f"{', '.join(waiting)}: not ready yet; `{self._hint('status', waiting)}`")
        else:
            self.say(f"{verb}ed {', '.join(units)}")

    def _hint(self, verb: str, units: list[str]) -> str:
        user = " --user" if self.deployment.user_manager else ""
        return f"systemctl{user} {verb} {' '.join(units)}"

    # systemctl

    def _is(self, question: str, name: str) -> bool:
        return self._run(question, "--quiet", name).returncode == 0

    def _systemctl(self, *arguments: str, within: float = 60) -> None:
        done = self._run(*arguments, within=within)
        if done.returncode:
            raise _refused(f"systemctl {arguments[0]}: {_words_of(done)}")

    def _run(self, *arguments: str, within: float = 60) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ)
        command = ["systemctl", "--no-pager"]
        if self.deployment.user_manager:
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


def _user_units() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "systemd" / "user"


def _words_of(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stderr or done.stdout).split()) or f"code {done.returncode}"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}") from error


def _refused(sentence: str) -> CommandError:
    return CommandError(sentence, returncode=Exit.TICK_FAILED)
