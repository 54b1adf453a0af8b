"""The schedules of a daemon's jobs: those of ``@job``, or those that the options set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daemonkit.jobs.job import DAEMON_DEFAULT, Job
from daemonkit.jobs.schedule import AddedToo, Jobs, jobs_of, one_of
from daemonkit.schedules.once import Once
from daemonkit.settings.parsing import that_fires, usage

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
            raise usage(f"{daemon.name}: {error}") from None
    combined = AddedToo if hasattr(daemon, "add_jobs") else Jobs
    if once:
        return combined(tuple(job._replace(schedule=Once()) for job in jobs))
    for job in jobs:
        that_fires(f"{daemon.name}, job {job.name}", job.schedule, options)
    return combined(jobs)
