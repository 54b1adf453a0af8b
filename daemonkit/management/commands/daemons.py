"""``manage.py daemons``: the door to what daemons there are and how they fare."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

import django.db
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from daemonkit import conf
from daemonkit.checks import ask_databases
from daemonkit.clock import Clock, Moment
from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.connections.units import fresh_connections
from daemonkit.deploying import deployment
from daemonkit.discovery import Found, find_daemon, find_daemons
from daemonkit.errors import Problem, classify, one_line
from daemonkit.exits import Exit
from daemonkit.jobs.job import Jobs, jobs_of
from daemonkit.jobs.ledger import read
from daemonkit.models import Run
from daemonkit.schedules.durations import duration_text
from daemonkit.schedules.poll import Poll
from daemonkit.settings.schedule import schedule_of

MOST = 200
"""Due times that ``daemons next`` prints at the most."""


class Command(BaseCommand):
    help = "List the project's daemons; show when they are due; check their databases; deploy them."
    requires_system_checks = ()
    daemon_options: Sequence[str] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        _add_format(parser, default="text")
        actions = parser.add_subparsers(dest="action", metavar="ACTION")
        listing = actions.add_parser("list", help="the daemons there are (the default)")
        upcoming = actions.add_parser("next", help="the due times to come of one daemon")
        upcoming.add_argument("name")
        upcoming.add_argument("--hours", type=float, default=24.0)
        runs = actions.add_parser("runs", help="what became of the due times of jobs")
        runs.add_argument("name", nargs="?", help="of this daemon alone")
        check = actions.add_parser("check", help="ask every database, and say what is missing")
        deployment.add_options(
            actions.add_parser("unit", help="print the systemd unit of a daemon")
        )
        install = actions.add_parser("install", help="have systemd run daemons, now and at boot")
        deployment.add_options(install)
        install.add_argument("--dry-run", action="store_true", help="say it, and do nothing")
        for action in (listing, upcoming, runs, check):
            _add_format(action, default=argparse.SUPPRESS)  # or it would undo what stood before

    def run_from_argv(self, argv: list[str]) -> None:
        """What stands behind ``--`` are the options of daemons; argparse would swallow it."""
        cut = argv.index("--") if "--" in argv else len(argv)
        self.daemon_options = argv[cut + 1 :]
        super().run_from_argv(argv[:cut])

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
        self._print_table(rows)
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
        if isinstance(schedule, Jobs):
            self._print_next_of_jobs(name, schedule, now, until, **options)
            return
        if options["format"] == "json":
            self._print_json({"name": name, "schedule": str(schedule), "due": times[:MOST]})
            return
        if isinstance(schedule, Poll):
            self.stdout.write(f"{name} polls: at once while there is work; if there is none:")
        self.stdout.write("\n".join(times[:MOST]) or f"Nothing within {hours:g} hours.")
        if len(times) > MOST:
            self.stdout.write(f"... and so on: {schedule}")

    def _print_next_of_jobs(
        self, name: str, schedule: Jobs, now: Moment, until: float, **options: Any
    ) -> None:
        coming = itertools.takewhile(
            lambda turn: turn[0].timestamp() <= until, schedule.upcoming_jobs(now)
        )
        turns = list(itertools.islice(coming, MOST + 1))
        if options["format"] == "json":
            times = [{"due": due.isoformat(" ", "seconds"), "job": job.name} for due, job in turns]
            self._print_json({"name": name, "schedule": str(schedule), "due": times[:MOST]})
            return
        for due, job in turns[:MOST]:
            self.stdout.write(f"{due.isoformat(' ', 'seconds')}  {job.name}")
        if not turns:
            self.stdout.write("Nothing in that time.")
        if len(turns) > MOST:
            self.stdout.write(f"... and so on: {schedule}")

    def print_runs(self, *, name: str | None, **options: Any) -> None:
        if name is not None:
            find_daemon(name)
        try:
            with fresh_connections:
                runs = read(name)
        except (django.db.Error, ImproperlyConfigured) as error:
            raise _unread(error) from error
        if options["format"] == "json":
            self._print_json(runs)
            return
        self._print_table([_as_cells(run) for run in runs])
        if not runs:
            self.stdout.write("No runs: the ledger is of daemons with jobs, and none has run yet.")

    def print_unit(self, *, names: list[str], **options: Any) -> None:
        deployed = deployment.deployment_of(options)
        units = [deployment.unit_of(deployed, name, self.daemon_options) for name in names]
        self.stdout.write("\n".join(units), ending="")
        if sentence := deployment.closed_folder(deployed):
            self.stderr.write(f"# {sentence}")

    def print_install(self, *, names: list[str], dry_run: bool, **options: Any) -> None:
        deployed = deployment.deployment_of(options)
        own, say = self.daemon_options, self.stdout.write
        deployment.install(deployed, names, own, say, dry_run=dry_run)

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

    def _print_table(self, rows: Sequence[tuple[str, ...]]) -> None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self.stdout.write("  ".join([*cells, row[-1]]).rstrip())

    def _print_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, default=str))


def _add_format(parser: Any, *, default: str) -> None:
    parser.add_argument("--format", choices=["text", "json"], default=default)


def _as_row(found: Found) -> tuple[str, str, str, str]:
    schedule, trouble = _schedule(found)
    if found.daemon is None or trouble:
        return found.name, found.app, "", trouble
    return found.name, found.app, schedule or "-", found.daemon.help


def _schedule(found: Found) -> tuple[str, str]:
    """A daemon's schedule, and what is wrong with it: the others are to be listed all the same."""
    if found.daemon is None:
        return "", found.trouble
    try:
        jobs = jobs_of(type(found.daemon))
    except CommandError as error:
        return "", str(error)
    return str(Jobs(jobs)) if jobs else str(found.daemon.schedule or ""), ""


def _as_cells(run: dict[str, Any]) -> tuple[str, ...]:
    what = run["status"] + (f": {run['reason']}" if run["reason"] else "")
    times = f"late {duration_text(run['late'])}" if run["late"] >= 0.0005 else ""
    took = "" if run["seconds"] is None else f"took {duration_text(run['seconds'])}"
    where = f"{run['host']} {run['pid']}"
    due = run["due"].astimezone(timezone.get_default_timezone()).isoformat(" ", "seconds")
    return due, run["daemon"], run["job"], what, times, took, where, run["error"]


def _unread(error: django.db.Error | ImproperlyConfigured) -> CommandError:
    """Why the ledger cannot be read, and what would mend it."""
    if isinstance(error, ImproperlyConfigured):
        return CommandError(one_line(error), returncode=Exit.MISCONFIGURED)
    refused = classify(error) is Problem.MISCONFIGURED
    missing = not refused and is_table_missing(conf.database(), Run._meta.db_table)
    return CommandError(
        f"the ledger cannot be read: {one_line(error)}"
        + (f": {how_to_migrate(conf.database())}" if missing else ""),
        returncode=Exit.MISCONFIGURED if refused else Exit.TICK_FAILED,
    )


def _as_json(found: Found) -> dict[str, Any]:
    daemon, (schedule, trouble) = found.daemon, _schedule(found)
    return {
        "name": found.name,
        "app": found.app,
        "schedule": schedule or None,
        "help": None if daemon is None else daemon.help,
        "error": trouble or None,
    }
