"""What the actions about processes and orders share: whether that is on, and what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import django.db
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from daemonkit import conf
from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.connections.units import fresh_connections
from daemonkit.daemon import Daemon
from daemonkit.discovery import find_daemon
from daemonkit.errors import Problem, classify, one_line
from daemonkit.exits import Exit
from daemonkit.jobs.schedule import jobs_of
from daemonkit.models import Order
from daemonkit.settings.parsing import usage
from daemonkit.status.reading import read


@contextlib.contextmanager
def status_database() -> Iterator[None]:
    """Use the tables in the block. Errors become one sentence, with exit code 1 or 78."""
    try:
        if not conf.status():
            raise CommandError(
                "DAEMONKIT['status'] is False: daemons write no status and take no orders"
            )
        with fresh_connections:
            yield
    except ImproperlyConfigured as error:
        raise CommandError(one_line(error), returncode=Exit.MISCONFIGURED) from error
    except django.db.Error as error:
        alias, is_refused = conf.database(), classify(error) is Problem.MISCONFIGURED
        is_missing = not is_refused and is_table_missing(alias, Order._meta.db_table)
        how = f": {how_to_migrate(alias)}" if is_missing else ""
        raise CommandError(
            f"the status of daemons cannot be read: {one_line(error)}{how}",
            returncode=Exit.MISCONFIGURED if is_refused or is_missing else Exit.TICK_FAILED,
        ) from error


def require_daemon(name: str, job: str = "") -> None:
    """Raise ``CommandError`` (exit code 2) for an unknown daemon, or one without this job."""
    if not job and read([name]):
        return  # perhaps of another project's code on the same database
    daemon = find_daemon(name)
    if job:
        require_job(daemon, job)


def require_job(daemon: Daemon, job: str) -> None:
    """Raise ``CommandError`` (exit code 2) for a daemon without this job. With ``add_jobs()`` it
    may have any."""
    jobs = [each.name for each in jobs_of(type(daemon))]
    if job not in jobs and not hasattr(daemon, "add_jobs"):
        known = f"its jobs are {', '.join(jobs)}" if jobs else "it has no jobs"
        raise usage(f"{daemon.name} has no job {job!r}: {known}")


def refuse_added(name: str, job: str) -> None:
    """Raise ``CommandError`` (exit code 2) for an order to run a job of ``add_jobs()``."""
    try:
        daemon = find_daemon(name)
    except CommandError:
        return  # perhaps it is of another project's code
    jobs = [each.name for each in jobs_of(type(daemon))]
    if hasattr(daemon, "add_jobs") and (job not in jobs if job else not jobs):
        raise usage(
            f"{name} has no method {job or 'at all'} under @job, and jobs of add_jobs() take no "
            f"order to run: call self.scheduler.modify_job(id, next_run_time=...) in the daemon"
        )


def refuse_server(name: str) -> None:
    """Raise ``CommandError`` (exit code 2) for a server, which has no ticks to pause or to run."""
    try:
        is_server = find_daemon(name).has_serve
    except CommandError:
        return  # perhaps it is of another project's code
    if is_server:
        raise usage(f"{name} is a server, which has no ticks: end it by `daemons stop {name}`")
