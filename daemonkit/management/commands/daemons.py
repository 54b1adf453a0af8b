"""``manage.py daemons``: list, check and deploy the project's daemons."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from daemonkit.management.actions.action import Action, Request
from daemonkit.management.actions.check_databases import CheckDatabases
from daemonkit.management.actions.dead_letters import DeadLetters
from daemonkit.management.actions.install import Install
from daemonkit.management.actions.job_runs import JobRuns
from daemonkit.management.actions.list_daemons import ListDaemons
from daemonkit.management.actions.next_due_times import NextDueTimes
from daemonkit.management.actions.orders import Pause, Resume, RunNow, StopNow
from daemonkit.management.actions.print_unit import PrintUnit
from daemonkit.management.actions.reload import ReloadDaemons
from daemonkit.management.actions.show_status import ShowStatus
from daemonkit.management.actions.uninstall import Uninstall

DEFAULT = ListDaemons()
ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        DEFAULT,
        NextDueTimes(),
        JobRuns(),
        DeadLetters(),
        ShowStatus(),
        Pause(),
        Resume(),
        RunNow(),
        StopNow(),
        CheckDatabases(),
        PrintUnit(),
        Install(),
        ReloadDaemons(),
        Uninstall(),
    )
}


class Command(BaseCommand):
    help = "List the project's daemons; show when they are due; check their databases; deploy them."
    requires_system_checks = ()
    daemon_options: Sequence[str] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        _add_format(parser, default="text")
        parsers = parser.add_subparsers(dest="action", metavar="ACTION")
        django_options = _django_options()
        for action in ACTIONS.values():
            own = parsers.add_parser(action.name, help=action.help, parents=[django_options])
            action.add_arguments(own)
            if action.has_format:
                _add_format(own, default=argparse.SUPPRESS)

    def run_from_argv(self, argv: list[str]) -> None:
        """Keep the arguments after ``--``, which are for daemons, away from argparse."""
        cut = argv.index("--") if "--" in argv else len(argv)
        self.daemon_options = argv[cut + 1 :]
        super().run_from_argv(argv[:cut])

    def handle(self, *args: Any, **options: Any) -> None:
        action = ACTIONS[options["action"] or DEFAULT.name]
        try:
            action.run(Request(options, self.stdout, self.stderr, self.daemon_options))
        except BrokenPipeError:  # `daemons next NAME | head`
            sys.stderr.close()


def _add_format(parser: Any, *, default: str) -> None:
    parser.add_argument("--format", choices=["text", "json"], default=default)


def _django_options() -> CommandParser:
    """Return a parser with the options of every command, which may also follow the action.

    They have no defaults, which would override what was typed before the action.
    """
    plain = BaseCommand()
    plain.requires_system_checks = Command.requires_system_checks
    parser = plain.create_parser("manage.py", "daemons", add_help=False)
    for option in parser._actions:
        option.default = argparse.SUPPRESS
    return parser
