"""``manage.py run_daemon NAME``: the door to a daemon's life."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from daemonkit.discovery import find_daemon
from daemonkit.stopping import on_signals


class Command(BaseCommand):
    help = "Run a daemon: one of the project's, any command or any callable (with --every, --cron)."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="a daemon, a command, or the dotted path of a callable")
        parser.add_argument(
            "options",
            nargs=argparse.REMAINDER,
            help="the daemon's own options (run_daemon NAME --help shows them); those of a plain "
            "command stand behind --",
        )

    def run_from_argv(self, argv: list[str]) -> None:
        self._called_from_command_line = True  # a usage error is then no traceback
        own, arguments = _split(argv)
        parser = self.create_parser(own[0], own[1])
        said = parser.parse_args(own[2:])
        before = own[2 : len(own) - len(said.options) - 1]
        try:
            # Before the daemon's module is imported: PID 1 can be stopped from here on. The
            # reloader has handlers of its own.
            if "--reload" in said.options:
                find_daemon(said.name, arguments).run_from_argv(
                    [own[0], said.name, *before, *said.options]
                )
            else:
                with on_signals():
                    find_daemon(said.name, arguments).run_from_argv(
                        [own[0], said.name, *before, *said.options]
                    )
        except CommandError as error:
            if said.traceback:
                raise
            self.stderr.write(f"CommandError: {error}")
            sys.exit(error.returncode)

    def handle(self, *args: Any, **options: Any) -> None:
        own, arguments = _split(options["options"])
        call_command(find_daemon(options["name"], arguments), *own)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """What stands before the first ``--`` and what behind it; argparse would swallow it."""
    if "--" not in argv:
        return argv, []
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]
