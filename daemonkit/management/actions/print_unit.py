"""``daemons unit NAME``: print the systemd unit of a daemon."""

from __future__ import annotations

from typing import Any

from daemonkit.deploying import deployment
from daemonkit.management.actions.action import Action, Request


class PrintUnit(Action):
    name = "unit"
    help = "print the systemd unit of a daemon"

    def add_arguments(self, parser: Any) -> None:
        deployment.add_options(parser)

    def run(self, request: Request) -> None:
        deployed = deployment.deployment_of(request.options)
        units = [
            deployment.unit_of(deployed, name, request.daemon_options)
            for name in request.options["names"]
        ]
        request.stdout.write("\n".join(units), ending="")
        if sentence := deployment.closed_folder(deployed):
            request.stderr.write(f"# {sentence}")
