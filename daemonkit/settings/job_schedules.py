"""The schedules of a daemon's jobs: those of ``@job``, or those that the options set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import apps

from daemonkit.clock import Clock
from daemonkit.jobs.job import DAEMON_DEFAULT, TICK, Job
from daemonkit.jobs.schedule import AddedToo, Jobs, jobs_of, one_of
from daemonkit.process.identity import host_name
from daemonkit.schedules.backfill import backfill
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.jittered import jittered
from daemonkit.schedules.once import Once
from daemonkit.schedules.triggers import as_schedule
from daemonkit.settings.parsing import seconds_or_none, that_fires, usage

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon


def shortest_tick_timeout(daemons: float | None, jobs: Sequence[Job]) -> float | None:
    """The shortest ``tick_timeout`` of these jobs; ``daemons`` is that of their daemon."""
    own = [daemons if job.tick_timeout == DAEMON_DEFAULT else job.tick_timeout for job in jobs]
    return min((each for each in own if each is not None), default=None)


def schedule_of_jobs(daemon: Daemon, options: Mapping[str, Any], *, once: bool) -> Jobs:
    """The schedules of a daemon's jobs as one. Raises ``CommandError`` for invalid combinations."""
    jobs = jobs_of(type(daemon))
    for name in ("every", "cron", "schedule"):
        if options.get(name) is not None:
            raise usage(f"{daemon.name} has jobs with schedules of their own: no --{name} for it")
    if daemon.schedule is not None:
        raise usage(f"{daemon.name} has jobs with schedules of their own, so its class schedule "
                     f"would have no effect; remove it")  # fmt: skip
    if not daemon.ledger and (job := next((job for job in jobs if job.needs_ledger), None)):
        raise usage(
            f"{daemon.name} has ledger = False, and its job {job.name} needs it: exclusive=True "
            f"and catch_up=True go by the ledger's rows"
        )
    if names := options.get("job"):
        try:
            jobs = one_of(jobs, [names] if isinstance(names, str) else list(names))
        except ValueError as error:
            added = "; --job takes no job of add_jobs()" * hasattr(daemon, "add_jobs")
            raise usage(f"{daemon.name}: {error}{added}") from None
    combined = AddedToo if hasattr(daemon, "add_jobs") else Jobs
    if options.get("due"):
        return Jobs((_backfilled(daemon, options, jobs, once=once),))
    if once:
        return combined(tuple(job._replace(schedule=Once(job.schedule)) for job in jobs))
    for job in jobs:
        that_fires(f"{daemon.name}, job {job.name}", job.schedule, options)
    return combined(tuple(_jittered(daemon, job) for job in jobs))


def schedule_of_past_ticks(daemon: Daemon, options: Mapping[str, Any], *, once: bool) -> Jobs:
    """The due times of the past that ``--due`` names, for a loop with ``catch_up``."""
    if not daemon.catch_up or daemon.schedule is None:
        raise usage(
            f"--due is for jobs, and for loops with catch_up = True: {daemon.name} has none"
        )
    job = Job(TICK, as_schedule(daemon.schedule), catch_up=True)
    return Jobs((_backfilled(daemon, options, (job,), once=once),))


def _backfilled(
    daemon: Daemon, options: Mapping[str, Any], jobs: tuple[Job, ...], *, once: bool
) -> Job:
    if not once:
        raise usage("--due runs due times of the past, and ends: say --once, too")
    if len(jobs) != 1:
        raise usage(f"--due is for one job: say --job NAME; {daemon.name} has {len(jobs)} jobs")
    if not daemon.ledger:
        raise usage(f"{daemon.name} has ledger = False: --due goes by the rows of the ledger")
    clock = options.get("clock") or Clock()
    try:
        past = backfill(jobs[0].schedule, str(options["due"]), clock.moment().wall)
    except ValueError as error:
        raise usage(f"{daemon.name}, job {jobs[0].name}: {error}") from None
    return jobs[0]._replace(schedule=past)


def _jittered(daemon: Daemon, job: Job) -> Job:
    if not job.jitter:
        return job
    names = (daemon.name, job.name) if job.exclusive else (daemon.name, job.name, host_name())
    try:
        return job._replace(schedule=jittered(job.schedule, job.jitter, *names))
    except ValueError as error:
        raise usage(f"{daemon.name}, job {job.name}: {error}") from None


def with_fixed_times(daemon: Daemon, schedule: Schedule) -> Schedule:
    """The schedule of a loop with ``jitter`` or ``catch_up``; with the latter its tick is a job.
    Raises ``CommandError`` where they make no sense."""
    if longest := seconds_or_none("jitter", daemon.jitter or None):
        try:
            schedule = jittered(schedule, longest, daemon.name, host_name())
        except ValueError as error:
            raise usage(f"{daemon.name}: {error}") from None
    return _schedule_with_rows(daemon, schedule) if daemon.catch_up else schedule


def _schedule_with_rows(daemon: Daemon, schedule: Schedule) -> Jobs:
    if not schedule.is_fixed or schedule.is_interval:
        why = f"which makes no sense with {schedule}: it has no times to miss"
    elif not daemon.ledger:
        why = "which goes by the rows of the ledger: remove ledger = False"
    elif daemon.wake_on:
        why = "and wake_on, which does not wake it: write tick() with Poll()"
    elif not apps.is_installed("daemonkit"):
        why = "which needs its tables: put 'daemonkit' into INSTALLED_APPS"
    else:
        return Jobs((Job(TICK, schedule, catch_up=True),))
    raise usage(f"{daemon.name} has catch_up = True, {why}")
