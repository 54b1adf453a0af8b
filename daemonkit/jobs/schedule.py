"""The jobs of a daemon's class, and their combined schedule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError

from daemonkit.clock import NEVER, Moment
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration
from daemonkit.jobs.job import Job, job_of
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.value import Value

MAX_NAMES = 5
"""How many jobs a text names before it says "and N more jobs"."""


def jobs_of(daemon: type[Any]) -> tuple[Job, ...]:
    """The jobs of a daemon's class, in the order of their definition.

    Raises ``CommandError`` (exit code 2) for one that a subclass has overridden without
    ``@job``.
    """
    members = (pair for each in reversed(daemon.__mro__) for pair in vars(each).items())
    jobs = []
    for name in dict.fromkeys(name for name, member in members if job_of(member)):
        method = getattr(daemon, name)
        if found := job_of(method):
            jobs.append(found._replace(name=name))
        elif method is not None:
            raise CommandError(
                f"{daemon.__module__.rpartition('.')[2]}.{name}() overrides a job and is none: put "
                f"@job(...) above it, too, or write {name} = None to remove the job",
                returncode=Exit.USAGE,
            )
    return tuple(jobs)


class Jobs(Value, Schedule):
    """The combined schedule of all jobs of a daemon."""

    jobs: tuple[Job, ...]

    def __init__(self, jobs: tuple[Job, ...]) -> None:
        super().__init__(jobs=jobs)

    @property
    def runs_once(self) -> int:  # type: ignore[override]
        return max(1, sum(job.schedule.runs_once for job in self.jobs))

    @property
    def is_shareable(self) -> bool:
        return all(bool(job.exclusive) for job in self.jobs)

    def __str__(self) -> str:
        first = "; ".join(map(str, self.jobs[:MAX_NAMES]))
        more = len(self.jobs) - MAX_NAMES
        return f"{first}; and {more} more jobs" if more > 0 else first

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        return min((job.schedule.due(last, begun, now) for job in self.jobs), default=NEVER)

    def upcoming(self, now: Moment) -> Iterator[datetime]:
        return (due for due, _ in self.upcoming_jobs(now))

    def upcoming_jobs(self, now: Moment) -> Iterator[tuple[datetime, Job]]:
        """The coming due times, each with its job."""
        pending = [(job, job.schedule.upcoming(now)) for job in self.jobs]
        heads = [(due, index) for index, (_, times) in enumerate(pending)
                 if (due := next(times, None))]  # fmt: skip
        while heads:
            due, index = min(heads)
            heads.remove((due, index))
            job, times = pending[index]
            yield due, job
            if following := next(times, None):
                heads.append((following, index))


class AddedToo(Jobs):
    """The combined schedule of a daemon with ``add_jobs()``. Its times are known only when it
    runs, and each process adds them."""

    @property
    def is_shareable(self) -> bool:
        return False

    def __str__(self) -> str:
        return "; ".join(filter(None, (super().__str__(), "and what add_jobs() adds")))


def one_of(jobs: tuple[Job, ...], names: list[str]) -> tuple[Job, ...]:
    """The jobs of these names. Raises ``ValueError``, which lists all jobs, for an unknown name."""
    known = {job.name: job for job in jobs}
    for name in names:
        if name not in known:
            others = f"; there are {', '.join(known)}" if known else ""
            raise ValueError(f"there is no job {name!r}{others}")
    return tuple(known[name] for name in dict.fromkeys(names))
