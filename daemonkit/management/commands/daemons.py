"""``manage.py daemons``: the door to what daemons there are and how they fare."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from daemonkit.checks import ask_databases
from daemonkit.clock import Clock
from daemonkit.discovery import Found, find_daemon, find_daemons
from daemonkit.errors import Problem
from daemonkit.exits import Exit
from daemonkit.options import schedule_of
from daemonkit.schedules import Poll

MOST = 200
"""Due times that ``daemons next`` prints at the most."""


class Command(BaseCommand):
    help = "List the project's daemons; show when they are due; check their databases."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        _add_format(parser, default="text")
        actions = parser.add_subparsers(dest="action", metavar="ACTION")
        listing = actions.add_parser("list", help="the daemons there are (the default)")
        upcoming = actions.add_parser("next", help="the due times to come of one daemon")
        upcoming.add_argument("name")
        upcoming.add_argument("--hours", type=float, default=24.0)
        check = actions.add_parser("check", help="ask every database, and say what is missing")
        for action in (listing, upcoming, check):
            _add_format(action, default=argparse.SUPPRESS)  # or it would undo what stood before

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"print_{options['action'] or 'list'}")(**options)
        except BrokenPipeError:  # `daemons next NAME | head`
            sys.stderr.close()

    def print_list(self, **options: Any) -> None:
        found = list(find_daemons())
        if options["format"] == "json":
            self._print_json([_as_json(one) for one in found])
            return
        rows = [_as_row(one) for one in found]
        for row in rows:
            widths = [max(len(other[column]) for other in rows) for column in range(3)]
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self.stdout.write("  ".join([*cells, row[3]]).rstrip())
        if not rows:
            self.stdout.write("No daemons: no command subclasses daemonkit.BaseDaemonCommand.")

    def print_next(self, *, name: str, hours: float, **options: Any) -> None:
        schedule = schedule_of(find_daemon(name), {})
        if not hours > 0:
            raise CommandError("--hours must be above zero", returncode=Exit.USAGE)
        now = Clock().moment()
        until = now.wall + hours * 3600
        upcoming = itertools.takewhile(lambda due: due.timestamp() <= until, schedule.upcoming(now))
        times = [due.isoformat(" ", "seconds") for due in itertools.islice(upcoming, MOST + 1)]
        if options["format"] == "json":
            self._print_json({"name": name, "schedule": str(schedule), "due": times[:MOST]})
            return
        if isinstance(schedule, Poll):
            self.stdout.write(f"{name} polls: at once while there is work; if there is none:")
        self.stdout.write("\n".join(times[:MOST]) or f"Nothing within {hours:g} hours.")
        if len(times) > MOST:
            self.stdout.write(f"... and so on: {schedule}")

    def print_check(self, **options: Any) -> None:
        answers = list(ask_databases())
        if options["format"] == "json":
            self._print_json(
                [
                    {
                        "alias": answer.alias,
                        "ok": answer.ok,
                        "text": answer.text,
                        "advice": answer.advice,
                    }
                    for answer in answers
                ]
            )
        else:
            for answer in answers:
                self.stdout.write(f"{answer.alias}: {answer.text}")
                for advice in answer.advice:
                    self.stdout.write(f"  {advice}: it bounds a half-open link")
        bad = [answer for answer in answers if not answer.ok]
        if bad:
            proven = all(answer.problem is Problem.MISCONFIGURED for answer in bad)
            raise CommandError(
                f"no connection to {', '.join(answer.alias for answer in bad)}",
                returncode=Exit.MISCONFIGURED if proven else Exit.TICK_FAILED,
            )

    def _print_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, default=str))


def _add_format(parser: Any, *, default: str) -> None:
    parser.add_argument("--format", choices=["text", "json"], default=default)


def _as_row(found: Found) -> tuple[str, str, str, str]:
    if found.daemon is None:
        return found.name, found.app, "", found.trouble
    return found.name, found.app, str(found.daemon.schedule or "-"), found.daemon.help


def _as_json(found: Found) -> dict[str, Any]:
    daemon = found.daemon
    return {
        "name": found.name,
        "app": found.app,
        "schedule": None if daemon is None or daemon.schedule is None else str(daemon.schedule),
        "help": None if daemon is None else daemon.help,
        "error": found.trouble or None,
    }
