"""``daemons reload NAME``: load new code into daemons that run under systemd."""

from __future__ import annotations

from typing import Any

from daemonkit.deploying import options
from daemonkit.deploying.reloading import Reload
from daemonkit.management.actions.action import Action, Request
from daemonkit.management.actions.orders import order
from daemonkit.status.rows import Verb


class ReloadDaemons(Action):
    name = "reload"
    help = "load new code into daemons that run under systemd, and say whether it worked"

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("names", nargs="+", metavar="NAME")
        parser.add_argument(
            "--everywhere", action="store_true", help="by an order, on every host, without systemd"
        )
        options.add_project_options(parser)

    def run(self, request: Request) -> None:
        if request.options["everywhere"]:
            for name in request.options["names"]:
                order(request, Verb.RELOAD, name)
            return
        deployment = options.deployment_of(request.options)
        Reload(deployment, request.options["names"], request.print).reload()
