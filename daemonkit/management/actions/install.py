"""``daemons install NAME``: run daemons under systemd, now and at boot."""

from __future__ import annotations

from typing import Any

from daemonkit.deploying import options
from daemonkit.management.actions.action import Action, Request


class Install(Action):
    name = "install"
    help = "run daemons under systemd, now and at boot"

    def add_arguments(self, parser: Any) -> None:
        options.add_names(parser)
        options.add_deployment_options(parser)
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def run(self, request: Request) -> None:
        options.install(
            options.deployment_of(request.options),
            request.options["names"],
            request.daemon_options,
            request.print,
            dry_run=request.options["dry_run"],
        )
