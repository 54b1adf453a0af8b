"""``manage.py run_daemon NAME``: run one daemon, or several under a supervisor."""

from __future__ import annotations

import argparse
import contextlib
import os
from itertools import takewhile
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from daemonkit.discovery import find_daemon
from daemonkit.process.exit_message import ends_in_a_sentence, format_in
from daemonkit.process.signal_handlers import on_signals
from daemonkit.settings.parsing import usage

_ALL = "\0all"
"""``--all`` is replaced by this for argparse, which requires a name."""


class Command(BaseCommand):
    help = (
        "Run a daemon: one of the project's, any command or any callable (with --every, --cron); "
        "or several, each in its own process."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="a daemon, a command, or the dotted path of a callable")
        parser.add_argument("--all", action="store_true", help="instead of names: every daemon")
        parser.add_argument(
            "options",
            nargs=argparse.REMAINDER,
            help="the daemon's own options (run_daemon NAME --help shows them); put the arguments "
            "of a plain command after --. Or the names of further daemons, and options for all",
        )

    def run_from_argv(self, argv: list[str]) -> None:
        self._called_from_command_line = True  # a usage error then prints no traceback
        if os.getpid() == 1:
            from daemonkit.process.init import leave_process_1

            leave_process_1()
        own, arguments = _split(argv)
        own[2:] = [_ALL if word == "--all" else word for word in own[2:]]
        parser = self.create_parser(own[0], own[1])
        if not own[2:]:
            parser.error("name a daemon or several, or use --all")
        parsed = parser.parse_args(own[2:])
        before = own[2 : len(own) - len(parsed.options) - 1]
        options = ["--all" if word == _ALL else word for word in parsed.options]
        log_format = format_in([*before, *options])
        # The handlers are installed before the daemon's module is imported, so that PID 1 can be
        # stopped during the import. The reloader has its own handlers.
        own_handlers = "--reload" in options
        handlers = contextlib.nullcontext() if own_handlers else on_signals(to_the_end=True)
        with ends_in_a_sentence(self.stderr, log_format, traceback=parsed.traceback), handlers:
            self._run(own[0], parsed.name, before, options, arguments)

    def _run(
        self, prog: str, name: str, before: list[str], options: list[str], arguments: list[str]
    ) -> None:
        words = _words(options)
        if name == _ALL:
            from daemonkit.workers.several import supervise_all  # a plain loop loads no supervisor

            if words or arguments:
                raise usage("use --all or names, not both")
            return supervise_all(prog, [*before, *options])
        daemon = find_daemon(name, arguments)
        if not words or _takes_words(daemon):
            return daemon.run_from_argv([prog, name, *before, *options])
        if arguments:
            raise usage("arguments after -- are for a single command; run it alone")
        return _supervise(prog, [name, *words], [*before, *options[len(words) :]])

    def handle(self, *args: Any, **options: Any) -> None:
        own, arguments = _split(options["options"])
        daemon, words = find_daemon(options["name"], arguments), _words(own)
        if words and not arguments and not _takes_words(daemon):
            _supervise("manage.py", [options["name"], *words], own[len(words) :])
        else:
            call_command(daemon, *own)


def _words(options: list[str]) -> list[str]:
    """Return the words before the first option: further daemons, or a daemon's arguments."""
    return list(takewhile(lambda word: not word.startswith("-"), options))


def _takes_words(daemon: BaseCommand) -> bool:
    parser = daemon.create_parser("manage.py", "run_daemon")
    return any(not action.option_strings for action in parser._actions)


def _supervise(prog: str, names: list[str], options: list[str]) -> None:
    from daemonkit.workers.several import supervise_several

    supervise_several(prog, names, options)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split at the first ``--``, which argparse would remove."""
    if "--" not in argv:
        return list(argv), []
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]
