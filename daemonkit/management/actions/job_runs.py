"""``daemons runs``: the due times of jobs, and whether each was run."""

from __future__ import annotations

from typing import Any

import django.db
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.utils import timezone

from daemonkit import conf
from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.connections.units import fresh_connections
from daemonkit.discovery import find_daemon
from daemonkit.errors import Problem, classify, one_line
from daemonkit.exits import Exit
from daemonkit.jobs.reading import read
from daemonkit.jobs.schedule import jobs_of
from daemonkit.management.actions.action import Action, Request
from daemonkit.models import Run
from daemonkit.schedules.durations import duration_text
from daemonkit.settings.parsing import usage


class JobRuns(Action):
    name = "runs"
    help = "the due times of jobs, and whether each was run"
    has_format = True

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("name", nargs="?", help="only those of this daemon")

    def run(self, request: Request) -> None:
        name = request.options["name"]
        if name is not None:
            _require_ledger(name)
        try:
            with fresh_connections:
                runs = read(name)
        except (django.db.Error, ImproperlyConfigured) as error:
            raise _unread(error) from error
        if request.wants_json:
            request.print_json(runs)
            return
        request.print_table([_as_row(run) for run in runs])
        if not runs:
            request.print("No runs: the ledger is for daemons with jobs, and no job has run yet.")


def _require_ledger(name: str) -> None:
    """Raise ``CommandError`` (exit code 2) for a daemon without a ledger."""
    daemon = find_daemon(name)
    if not jobs_of(type(daemon)):
        raise usage(f"{name} has no jobs, and a loop has no runs: what its ticks did is in the log")
    if not daemon.ledger:
        raise usage(f"{name} has ledger = False in its class: no rows of its runs are kept")


def _as_row(run: dict[str, Any]) -> tuple[str, ...]:
    what = run["status"] + (f": {run['reason']}" if run["reason"] else "")
    times = f"late {duration_text(run['late'])}" if run["late"] >= 0.0005 else ""
    took = "" if run["seconds"] is None else f"took {duration_text(run['seconds'])}"
    where = f"{run['host']} {run['pid']}"
    due = run["due"].astimezone(timezone.get_default_timezone()).isoformat(" ", "seconds")
    return due, run["daemon"], run["job"], what, times, took, where, run["error"]


def _unread(error: django.db.Error | ImproperlyConfigured) -> CommandError:
    """Return the error that says why the ledger cannot be read, and how to fix it."""
    if isinstance(error, ImproperlyConfigured):
        return CommandError(one_line(error), returncode=Exit.MISCONFIGURED)
    is_refused, alias = classify(error) is Problem.MISCONFIGURED, conf.database()
    is_missing = not is_refused and is_table_missing(alias, Run._meta.db_table)
    how_to_fix = f": {how_to_migrate(alias)}" if is_missing else ""
    return CommandError(
        f"the ledger cannot be read: {one_line(error)}{how_to_fix}",
        returncode=Exit.MISCONFIGURED if is_refused or is_missing else Exit.TICK_FAILED,
    )
