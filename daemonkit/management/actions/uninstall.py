"""``daemons uninstall NAME``: stop daemons that were installed, and remove their units."""

from __future__ import annotations

from typing import Any

from daemonkit.deploying import options
from daemonkit.deploying.uninstalling import Removal
from daemonkit.management.actions.action import Action, Request
from daemonkit.settings.parsing import usage


class Uninstall(Action):
    name = "uninstall"
    help = "stop daemons that were installed, and remove their units"

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME")
        parser.add_argument("--all", action="store_true", help="every daemon of the project")
        options.add_project_options(parser)
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def run(self, request: Request) -> None:
        names = request.options["names"]
        if bool(names) == request.options["all"]:
            raise usage("name the daemons, or use --all")
        removal = Removal(options.deployment_of(request.options), names, request.print)
        if request.options["dry_run"]:
            removal.rehearse()
        else:
            removal.remove()
