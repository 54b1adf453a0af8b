"""Uninstall a project's units: stop, disable and remove them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.systemctl import refused
from daemonkit.deploying.unit_files import UnitFiles


class Removal:
    """Removes the units of the named daemons, or all of the project if there are no names.

    The target is removed with the last unit. A daemon with a unit need not exist any more. Calls
    ``say`` with each thing that was done. Raises ``CommandError`` with one sentence and exit code 1
    if that is not allowed or fails.
    """

    def __init__(
        self, deployment: Deployment, names: Sequence[str], say: Callable[[str], object]
    ) -> None:
        self.say = say
        self._deployment = deployment
        self._files = UnitFiles(deployment)
        self._systemctl = self._files.systemctl
        self._named = [deployment.unit(name) for name in names]

    def rehearse(self) -> None:
        """Say what ``remove()`` would do, without doing it. Refuses what it would refuse."""
        units = self._refuse()
        for unit in units:
            self.say(f"would stop, disable and remove {self._files.path(unit)}")
        if not units:
            self.say("nothing to do: no daemon of this project is installed")

    def remove(self) -> None:
        """Stop, disable and remove the units. Waits until the daemons have stopped."""
        units = self._refuse()
        if not units:
            self.say("nothing to do: no daemon of this project is installed")
            return
        self._systemctl("disable", "--now", *units, within=None)
        self.say(f"stopped and disabled {', '.join(units)}")
        for unit in units:
            self._files.remove(unit)
            self.say(f"removed {self._files.path(unit)}")
        self._systemctl("daemon-reload")
        self._systemctl.ask("reset-failed", *units)  # forget those that had failed

    def _refuse(self) -> list[str]:
        """Return the units to remove. Raises ``CommandError`` if they cannot be removed."""
        files = self._files
        files.require_systemd()
        target = self._deployment.target
        files.refuse_foreign([*self._named, target], "remove it by hand, or use --project NAME")
        for unit in self._named:
            if files.read(unit) is None:
                raise refused(f"{files.path(unit)} does not exist: this daemon is not installed")
        ours = files.ours()
        units = self._named or ours
        if units:
            files.refuse_closed_folder()
        is_last = set(ours) <= set(units) and files.read(target) is not None
        return [*units, target] if is_last else units
