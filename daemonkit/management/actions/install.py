"""``daemons install NAME``: have systemd run daemons, now and at boot."""

from __future__ import annotations

from typing import Any

from daemonkit.deploying import options
from daemonkit.management.actions.action import Action, Request


class Install(Action):
    name = "install"
    help = "have systemd run daemons, now and at boot"

    def add_arguments(self, parser: Any) -> None:
        options.add_names(parser)
        options.add_deployment_options(parser)
        parser.add_argument("--dry-run", action="store_true", help="say it, and do nothing")

    def run(self, request: Request) -> None:
        options.install(
            options.deployment_of(request.options),
            request.options["names"],
            request.daemon_options,
            request.print,
            dry_run=request.options["dry_run"],
        )
