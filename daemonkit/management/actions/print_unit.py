"""``daemons unit NAME``: print the systemd unit of a daemon."""

from __future__ import annotations

from typing import Any

from daemonkit.deploying import options
from daemonkit.deploying.closed_folders import closed_folder
from daemonkit.management.actions.action import Action, Request


class PrintUnit(Action):
    name = "unit"
    help = "print the systemd unit of a daemon"

    def add_arguments(self, parser: Any) -> None:
        options.add_names(parser)
        options.add_deployment_options(parser)

    def run(self, request: Request) -> None:
        deployment = options.deployment_of(request.options)
        units = [
            options.unit_of(deployment, name, request.daemon_options)
            for name in request.options["names"]
        ]
        request.stdout.write("\n".join(units), ending="")
        if closed := closed_folder(deployment):
            request.stderr.write(f"# {closed}")
