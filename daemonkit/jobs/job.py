"""``@job``: a method of a daemon that has a schedule of its own."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from daemonkit.schedules.base import Schedule
from daemonkit.schedules.durations import parse_duration
from daemonkit.schedules.triggers import as_schedule

Method = TypeVar("Method", bound=Callable[..., Any])

DAEMON_DEFAULT = -1.0
"""As ``tick_timeout`` of a job: the daemon's holds."""


class Job(NamedTuple):
    """A method under ``@job``, and how it is to be run. Times are in seconds.

    ``grace``
        How late a run may start; None: until the next one is due.
    ``tick_timeout``
        As the daemon's, which is the default; None: no limit.
    ``catch_up``
        Whether a due time that passed while the process was down is run once at the start.
    ``exclusive``
        Whether a due time is run by one process only, of all on all hosts.
    """

    name: str
    schedule: Schedule
    grace: float | None = None
    tick_timeout: float | None = DAEMON_DEFAULT
    catch_up: bool = False
    exclusive: bool = False

    @property
    def needs_ledger(self) -> bool:
        return self.exclusive or self.catch_up

    def __str__(self) -> str:
        return f"{self.name} {self.schedule}"


def job(
    schedule: Any,
    *,
    grace: float | str | None = None,
    tick_timeout: float | str | None = DAEMON_DEFAULT,
    catch_up: bool = False,
    exclusive: bool = False,
) -> Callable[[Method], Method]:
    """Make a method of a ``BaseDaemonCommand`` one of its jobs, run on a pool of threads.

    ``schedule`` is ``Every``, ``Cron``, ``Poll`` or any trigger of APScheduler's. ``grace`` says
    how late a run may still start (None, the default: until the next one is due: a late run is
    better than none, and the next one makes it needless). Runs of one job never overlap. An
    ``async def`` runs on the daemon's event loop. The other arguments are explained at ``Job``.

    Raises ``ValueError`` or ``TypeError``, in one sentence, for what makes no sense.
    """
    if not isinstance(schedule, Schedule) and inspect.isroutine(schedule):
        raise TypeError("@job needs a schedule, as in @job(Every(minutes=5))")

    def decorate(method: Method) -> Method:
        name = _name_of(method)
        # The class is being made; a second method of the same name would replace the first.
        if job_of(sys._getframe(1).f_locals.get(name)):
            raise ValueError(f"there are two jobs {name}(): give one of them another name")
        try:
            made = Job(
                name=name,
                schedule=_schedule(schedule, catch_up=catch_up, exclusive=exclusive),
                grace=_seconds("grace", grace),
                tick_timeout=_seconds("tick_timeout", tick_timeout),
                catch_up=catch_up,
                exclusive=exclusive,
            )
        except ValueError as error:
            raise ValueError(f"job {name}(): {error}") from None
        setattr(method, _MARK, made)
        return method

    return decorate


def _name_of(method: Any) -> str:
    """The name of what can be a job. Raises ``TypeError`` or ``ValueError`` for what cannot."""
    if not inspect.isfunction(method):
        raise TypeError(f"@job decorates methods, not {method!r}")
    name = method.__name__
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise TypeError(f"job {name}() is a generator, which returns before it works: no yield")
    try:
        inspect.signature(method).bind("self")
    except TypeError as error:
        raise TypeError(f"job {name}() is called with self and nothing else: {error}") from None
    if len(name) > 200:
        raise ValueError(f"the name of job {name[:40]}... is longer than 200 characters")
    return name


def _schedule(value: Any, *, catch_up: bool, exclusive: bool) -> Schedule:
    when = as_schedule(value)
    if catch_up and not when.is_fixed:
        raise ValueError(f"catch_up=True makes no sense with {when}, which has no times to miss")
    return when.same_everywhere() if exclusive else when


_MARK = "_daemonkit_job"


def job_of(method: Any) -> Job | None:
    """The job that a method is, if it is one."""
    found = getattr(method, _MARK, None)
    return found if isinstance(found, Job) else None


def _seconds(name: str, value: float | str | None) -> float | None:
    if value is None or value == "none":
        return None
    if name == "tick_timeout" and value == DAEMON_DEFAULT:
        return DAEMON_DEFAULT
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{name} takes {error}") from None
    if seconds <= 0:
        raise ValueError(f"{name} must be above zero, not {value}")
    return seconds
