"""By which schedule a daemon runs: what its class says, and what its options say instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemonkit.clock import NEVER, Clock, Moment
from daemonkit.daemon import Daemon
from daemonkit.iteration import Iteration
from daemonkit.jobs.job import Job, Jobs, jobs_of, one_of
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.cron import Cron
from daemonkit.schedules.every import Every
from daemonkit.schedules.triggers import as_schedule
from daemonkit.settings.parsing import seconds, usage


class _AtOnce(Schedule):
    """The schedule of ``--once``."""

    def __str__(self) -> str:
        return "once"

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        return begun if last is None else NEVER


def schedule_of(daemon: Daemon, options: Mapping[str, Any], *, once: bool = False) -> Schedule:
    """The schedule of a daemon under these options. Raises ``CommandError`` if it has none."""
    every, cron = options.get("every"), options.get("cron")
    if jobs := jobs_of(type(daemon)):
        return _schedule_of_jobs(daemon, jobs, options, once=once)
    if options.get("job"):
        raise usage(f"{daemon.name} has no jobs: --job is for a daemon that has")
    if every is not None and cron is not None:
        raise usage("say --every or --cron, not both")
    if every is not None:
        return Every(seconds("every", every))
    if cron is not None:
        try:
            return Cron(cron)
        except ValueError as error:
            raise usage(f"--cron: {error}") from None
    if once:
        return _AtOnce()
    schedule = options.get("schedule") or daemon.schedule
    if schedule is not None:
        try:
            return _that_fires(daemon.name, as_schedule(schedule), options)
        except ValueError as error:
            raise usage(f"{daemon.name}: {error}") from None
    hint = " (interval is not a setting)" if hasattr(daemon, "interval") else ""
    raise usage(f"{daemon.name} {daemon.how_to_schedule}{hint}")


def _schedule_of_jobs(
    daemon: Daemon, jobs: tuple[Job, ...], options: Mapping[str, Any], *, once: bool
) -> Jobs:
    for said in ("every", "cron", "schedule"):
        if options.get(said) is not None:
            raise usage(f"{daemon.name} has jobs with schedules of their own: no --{said} for it")
    if daemon.schedule is not None:
        raise usage(f"{daemon.name} has jobs with schedules of their own, and a schedule beside "
                     f"them that nothing would run by; take it away")  # fmt: skip
    if not daemon.ledger and (job := next((job for job in jobs if job.needs_ledger), None)):
        raise usage(
            f"{daemon.name} has ledger = False, and its job {job.name} needs it: exclusive=True "
            f"and catch_up=True go by the ledger's rows"
        )
    if names := options.get("job"):
        try:
            jobs = one_of(jobs, [names] if isinstance(names, str) else list(names))
        except ValueError as error:
            raise usage(f"{daemon.name}: {error}") from None
    if once:
        return Jobs(tuple(job._replace(schedule=_AtOnce()) for job in jobs))
    for job in jobs:
        _that_fires(f"{daemon.name}, job {job.name}", job.schedule, options)
    return Jobs(jobs)


def _that_fires(name: str, schedule: Schedule, options: Mapping[str, Any]) -> Schedule:
    now = (options.get("clock") or Clock()).moment()
    if schedule.due(None, now, now) == NEVER:
        raise usage(f"{name}: the trigger {schedule} never fires: it has no time to come")
    return schedule
