"""Reload the daemons of a project, and report whether they run the new code."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence

from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.systemctl import refused
from daemonkit.deploying.unit_files import UnitFiles

LOOK_INTERVAL = 0.1
"""Seconds between two looks at the state of a unit."""

_PROPERTIES = ("ActiveState", "SubState", "StateChangeTimestampMonotonic", "StatusErrno")


class Reload:
    """Reloads installed daemons. Calls ``say`` with each thing that was done.

    Raises ``CommandError`` with one sentence and exit code 1 if that is not allowed or fails.
    """

    def __init__(
        self, deployment: Deployment, names: Sequence[str], say: Callable[[str], object]
    ) -> None:
        self.say = say
        self._files = UnitFiles(deployment)
        self._systemctl = self._files.systemctl
        self._units = [self._unit(deployment, name) for name in names]

    def _unit(self, deployment: Deployment, name: str) -> str:
        """Return the unit that `daemons install` wrote, or else the instance of the template."""
        unit = deployment.unit(name)
        return unit if self._files.read(unit) is not None else f"daemonkit@{name}.service"

    def reload(self) -> None:
        """Signal all units, and wait until each has reloaded or continues with its old code."""
        self._files.require_systemd("; send SIGHUP to the process of the daemon")
        before = [self._state(unit) for unit in self._units]
        for unit, state in zip(self._units, before, strict=True):
            if state["ActiveState"] != "active":
                hint = self._systemctl.hint("start", unit)
                raise refused(f"{unit} does not run, so it has no code to reload: `{hint}`")
        for unit in self._units:
            self._systemctl("kill", "--kill-who=main", "--signal=HUP", unit)
        failures = [
            failure
            for unit, state in zip(self._units, before, strict=True)
            if (failure := self._failure(unit, state["StateChangeTimestampMonotonic"]))
        ]
        if failures:
            raise refused("; ".join(failures))

    def _failure(self, unit: str, since: str) -> str:
        """Wait for a unit. Returns what went wrong; "" if it has reloaded."""
        state = self._state(unit)
        while state["StateChangeTimestampMonotonic"] == since or _is_changing(state):
            time.sleep(LOOK_INTERVAL)
            state = self._state(unit)
        if state["ActiveState"] != "active":
            return f"{unit} has ended: `{self._systemctl.hint('status', unit)}`"
        status = self._systemctl.show(unit, "StatusText")["StatusText"]
        if state["StatusErrno"] == str(errno.ENOEXEC):
            return f"{unit}: {status}"
        self.say(f"reloaded {unit}: {status}")
        return ""

    def _state(self, unit: str) -> dict[str, str]:
        return self._systemctl.show(unit, *_PROPERTIES)


def _is_changing(state: dict[str, str]) -> bool:
    if state["SubState"].startswith("auto-restart"):
        return False
    return state["ActiveState"] in ("reloading", "activating", "deactivating")
