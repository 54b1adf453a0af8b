"""``daemons reload NAME``: load new code into daemons that run under systemd."""

from __future__ import annotations

from typing import Any

from daemonkit.deploying import options
from daemonkit.deploying.reloading import Reload
from daemonkit.management.actions.action import Action, Request


class ReloadDaemons(Action):
    name = "reload"
    help = "load new code into daemons that run under systemd, and say whether it worked"

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("names", nargs="+", metavar="NAME")
        options.add_project_options(parser)

    def run(self, request: Request) -> None:
        deployment = options.deployment_of(request.options)
        Reload(deployment, request.options["names"], request.print).reload()
