"""``daemons runs``: the due times of jobs, and whether each was run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
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
from daemonkit.jobs.reading import Choice, read
from daemonkit.management.actions.action import Action, Request
from daemonkit.management.actions.status_database import require_job
from daemonkit.models import Run
from daemonkit.schedules.durations import duration_text, parse_duration
from daemonkit.settings.attributes import has_jobs
from daemonkit.settings.parsing import at_least_one, usage


class JobRuns(Action):
    name = "runs"
    help = "the due times of jobs, and whether each was run"
    has_format = True

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("name", nargs="?", help="only those of this daemon")
        parser.add_argument("--job", metavar="JOB", help="only those of this job")
        parser.add_argument("--failed", action="store_true", help="only failed and killed runs")
        parser.add_argument(
            "--since", metavar="TIME", help="only those due since then: 2h, or '2026-11-01 03:00'"
        )
        parser.add_argument("--limit", metavar="N", help="at most the newest N")

    def run(self, request: Request) -> None:
        choice = _choice(request.options)
        try:
            with fresh_connections:
                runs = read(choice)
        except (django.db.Error, ImproperlyConfigured) as error:
            raise _unread(error) from error
        if request.wants_json:
            request.print_json(runs)
            return
        request.print_table([_as_row(run) for run in runs])
        if not runs and choice == Choice(choice.daemon):
            request.print("No runs: the ledger is for daemons with jobs, and no job has run yet.")
        elif not runs:
            request.print("No such runs.")


def _choice(options: Mapping[str, Any]) -> Choice:
    """Raises ``CommandError`` (exit code 2) for what cannot be chosen."""
    name, job, limit, since = (options[each] for each in ("name", "job", "limit", "since"))
    if name is not None:
        _require_ledger(name, job)
    return Choice(
        daemon=name,
        job=job,
        since=None if since is None else _moment(since),
        limit=None if limit is None else at_least_one("limit", limit),
        only_failed=options["failed"],
    )


def _moment(text: str) -> datetime:
    """A time, or how long ago it was."""
    try:
        return timezone.now() - timedelta(seconds=parse_duration(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise usage(
            f"--since takes a time such as '2026-11-01 03:00', or a duration such as 2h, "
            f"not {text!r}"
        ) from None
    return found if found.tzinfo else timezone.make_aware(found, timezone.get_default_timezone())


def _require_ledger(name: str, job: str | None) -> None:
    """Raise ``CommandError`` (exit code 2) for a daemon without a ledger, or without this job."""
    daemon = find_daemon(name)
    if not has_jobs(type(daemon)):
        raise usage(f"{name} has no jobs, and a loop has no runs: what its ticks did is in the log")
    if job is not None:
        require_job(daemon, job)
    if not daemon.ledger:
        raise usage(f"{name} has ledger = False in its class: no rows of its runs are kept")


def _as_row(run: dict[str, Any]) -> tuple[str, ...]:
    what = run["status"] + (f": {run['reason']}" if run["reason"] else "")
    what += f", attempt {run['attempt']}" if run["attempt"] > 1 else ""
    times = f"late {duration_text(run['late'])}" if run["late"] >= 0.0005 else ""
    took = "" if run["seconds"] is None else f"took {duration_text(run['seconds'])}"
    where = f"{run['host']} {run['pid']}"
    due = run["due"].astimezone(timezone.get_default_timezone()).isoformat(" ", "seconds")
    return due, run["daemon"], run["job"], what, times, took, where, run["error"] or run["result"]


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
