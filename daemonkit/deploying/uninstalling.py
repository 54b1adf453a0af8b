"""Taking a project's units away again: stopped, disabled, removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.systemctl import refused
from daemonkit.deploying.unit_files import UnitFiles


class Removal:
    """Units of daemons that are to be removed; without names, all of the project. The target goes
    with the last one. ``say`` is told what was done.

    A daemon need not exist any more. Raises ``CommandError`` with one sentence and exit code 1 for
    what may not or cannot be done.
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
        """Say what would be done, and do nothing; or refuse what ``remove`` would refuse."""
        units = self._refuse()
        for unit in units:
            self.say(f"would stop, disable and remove {self._files.path(unit)}")
        if not units:
            self.say("nothing to do: no daemon of this project is installed")

    def remove(self) -> None:
        """Stop, disable and remove. Waits until the daemons have stopped."""
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
        self._systemctl.ask("reset-failed", *units)  # of those that had failed

    def _refuse(self) -> list[str]:
        """The units to be removed, with nothing in the way."""
        files = self._files
        files.require_systemd()
        target = self._deployment.target
        files.refuse_foreign([*self._named, target], "remove it by hand, or say --project NAME")
        for unit in self._named:
            if files.read(unit) is None:
                raise refused(f"{files.path(unit)} is not there: no such daemon was installed")
        ours = files.ours()
        units = self._named or ours
        if units:
            files.refuse_closed_folder()
        is_last = set(ours) <= set(units) and files.read(target) is not None
        return [*units, target] if is_last else units
