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
"""The value of a job's ``tick_timeout`` that stands for the daemon's own."""


TICK = "tick"
"""The job of a loop with ``catch_up``."""


ATOMIC = "atomic"
"""The value of ``exclusive`` with which the claim and the work commit together."""


class Job(NamedTuple):
    """A method under ``@job``, and how it is run. Times are in seconds.

    ``grace``
        How late a run may start; None: until the next one is due.
    ``tick_timeout``
        As the daemon's setting, which is the default; None: no limit.
    ``catch_up``
        Whether the last due time that passed while the process was down is run at the start.
    ``exclusive``
        Whether, of all processes on all hosts, only one runs it at a time, and each due time once.
        With "atomic" the claim and the work commit in one transaction on DAEMONKIT["database"].
    ``jitter``
        By how many seconds its due times are later at most: a fixed number for each host; for an
        exclusive job the same everywhere.
    ``retries``
        How often a failed run is tried again before the next due time.
    ``dont_retry``
        Exceptions after which it is not tried again.
    """

    name: str
    schedule: Schedule
    grace: float | None = None
    tick_timeout: float | None = DAEMON_DEFAULT
    catch_up: bool = False
    exclusive: bool | str = False
    retries: int = 0
    dont_retry: tuple[type[BaseException], ...] = ()
    jitter: float = 0.0

    @property
    def needs_ledger(self) -> bool:
        return bool(self.exclusive) or self.catch_up

    @property
    def is_atomic(self) -> bool:
        """Whether the claim and the work commit together."""
        return self.exclusive == ATOMIC

    def __str__(self) -> str:
        return f"{self.name} {self.schedule}"


def job(
    schedule: Any,
    *,
    grace: float | str | None = None,
    tick_timeout: float | str | None = DAEMON_DEFAULT,
    catch_up: bool = False,
    exclusive: bool | str = False,
    retries: int = 0,
    dont_retry: Any = (),
    jitter: float | str | None = None,
) -> Callable[[Method], Method]:
    """Make a method of a ``BaseDaemonCommand`` one of its jobs, run on a pool of threads.

    ``schedule`` is ``Every``, ``Cron``, ``Poll`` or any APScheduler trigger. ``grace`` says how
    late a run may still start; by default, until the next one is due. Runs of one job never
    overlap. An ``async def`` runs on the daemon's event loop. ``Job`` explains the other arguments.

    Raises ``ValueError`` or ``TypeError``, in one sentence, for invalid arguments or methods.
    """
    if not isinstance(schedule, Schedule) and inspect.isroutine(schedule):
        raise TypeError("@job needs a schedule, as in @job(Every(minutes=5))")

    def decorate(method: Method) -> Method:
        name = _name_of(method)
        # The class body is still running; a second method of this name would replace the first.
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
                retries=_retries(retries, schedule),
                dont_retry=_errors(dont_retry),
                jitter=_seconds("jitter", jitter or None) or 0.0,
            )
        except ValueError as error:
            raise ValueError(f"job {name}(): {error}") from None
        setattr(method, _MARK, made)
        return method

    return decorate


def _name_of(method: Any) -> str:
    """The name of a method. Raises ``TypeError`` or ``ValueError`` if it cannot be a job."""
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


def _schedule(value: Any, *, catch_up: bool, exclusive: bool | str) -> Schedule:
    when = as_schedule(value)
    if exclusive not in (True, False, ATOMIC):
        raise ValueError(f'exclusive is True, False or "atomic", not {exclusive!r}')
    if catch_up and not when.is_fixed:
        raise ValueError(f"catch_up=True makes no sense with {when}, which has no times to miss")
    return when.same_everywhere() if exclusive else when


def _retries(value: Any, schedule: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"retries is how often a failed run is tried again, not {value!r}")
    if value and not as_schedule(schedule).is_fixed:
        raise ValueError(
            f"retries={value} makes no sense with {schedule}, whose next run is a new try"
        )
    return value


def _errors(value: Any) -> tuple[type[BaseException], ...]:
    errors = value if isinstance(value, tuple | list) else (value,)
    for error in errors:
        if not isinstance(error, type) or not issubclass(error, BaseException):
            raise ValueError(f"dont_retry takes exception classes, not {error!r}")
    return tuple(errors)


_MARK = "_daemonkit_job"


def job_of(method: Any) -> Job | None:
    """The job of a method under ``@job``, else None."""
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
