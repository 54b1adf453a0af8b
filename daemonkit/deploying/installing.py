"""Install a project's units where systemd reads them, and start them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping

from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.systemctl import refused
from daemonkit.deploying.unit_files import UnitFiles

START_TIME = 15.0
"""Seconds for which the start of the daemons is watched; opening one may take longer."""


class Installation:
    """Installs units, given as texts by name. Calls ``say`` with each thing that was done.

    Raises ``CommandError`` with one sentence and exit code 1 if that is not allowed or fails.
    """

    def __init__(
        self, deployment: Deployment, units: Mapping[str, str], say: Callable[[str], object]
    ) -> None:
        self.units = units
        self.say = say
        self._files = UnitFiles(deployment)
        self._systemctl = self._files.systemctl

    def rehearse(self) -> None:
        """Say what ``install()`` would do, without doing it. Refuses what it would refuse."""
        self._refuse()
        for name, text in self.units.items():
            there = self._files.read(name)
            verb = {None: "would write", text: "would keep"}.get(there, "would overwrite")
            self.say(f"{verb} {self._files.path(name)}\n\n{text}")
        self.say(f"would enable and start {', '.join(self.units)}")

    def install(self) -> None:
        """Write, enable and start the units that are not yet written, enabled or running."""
        self._refuse()
        written = [name for name, text in self.units.items() if self._write(name, text)]
        if written:
            self._systemctl("daemon-reload")
        disabled = [name for name in self.units if not self._systemctl.is_("is-enabled", name)]
        if disabled:
            self._systemctl("enable", *disabled)
            self.say(f"enabled {', '.join(disabled)}")
        running = [name for name in self.units if self._systemctl.is_("is-active", name)]
        services = [name for name in written if name in running and name.endswith(".service")]
        if services:
            self._start("restart", services)
        if missing := [name for name in self.units if name not in running]:
            self._start("start", missing)
        if not written and not disabled and not missing:
            self.say("nothing to do: everything is written, enabled and running")

    def _refuse(self) -> None:
        """Raise ``CommandError`` before anything is written if the installation is impossible."""
        files = self._files
        files.require_systemd("; `daemons unit NAME` prints the unit for a machine where it does")
        files.refuse_foreign(self.units, "remove it, or use --project NAME")
        for name in self.units:
            if files.read(name) is None:
                self._refuse_unit_elsewhere(name)
        files.refuse_closed_folder()

    def _refuse_unit_elsewhere(self, name: str) -> None:
        if path := self._systemctl.show(name, "FragmentPath")["FragmentPath"]:
            raise refused(f"there is already a unit {name}, {path}: use --project NAME")

    def _write(self, name: str, text: str) -> bool:
        before = self._files.read(name)
        if before == text:
            return False
        self._files.write(name, text)
        self.say(f"{'wrote' if before is None else 'overwrote'} {self._files.path(name)}")
        return True

    def _start(self, verb: str, units: list[str]) -> None:
        services = [name for name in units if name.endswith(".service")]
        try:
            self._systemctl(verb, *units, within=START_TIME)
        except subprocess.TimeoutExpired:
            waiting = [name for name in services if not self._systemctl.is_("is-active", name)]
            hint = self._systemctl.hint("status", *waiting)
            self.say(f"{', '.join(waiting)}: not ready yet; `{hint}`")
        else:
            self.say(f"{verb}ed {', '.join(units)}")
            for name in services:
                self.say(f"{name}: {self._systemctl.show(name, 'StatusText')['StatusText']}")
