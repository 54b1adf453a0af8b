"""Back-off: how a failed iteration changes the next due time."""

from __future__ import annotations

import random

from daemonkit.clock import Moment
from daemonkit.errors import Problem, classify
from daemonkit.iteration import Iteration
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.value import Value

WORKED_SECONDS = 60.0
"""A connection that was lost in a tick after this many seconds of work counts as an outage."""


class Backoff(Value):
    """Seconds to wait after the first, second, third... failure in a row: exponential, capped,
    and with jitter, so that many daemons do not reconnect to a restarted server all at once.

    The wait is a random value between half of ``first * factor ** (failures - 1)`` and all of it.
    It is never more than ``cap``.
    """

    first: float
    factor: float
    cap: float

    def __init__(self, first: float = 1.0, factor: float = 2.0, cap: float = 60.0) -> None:
        super().__init__(first=first, factor=factor, cap=cap)
        if not (first > 0 and factor >= 1 and cap > 0):
            raise ValueError(
                f"Backoff() needs first and cap above zero and a factor of 1 or more, not {self}"
            )

    def pause(self, failures: int) -> float:
        """Seconds to wait after this many failures in a row (1 or more)."""
        exponent = min(failures - 1, 64)  # 2.0 ** 1024 is an OverflowError, months into an outage
        whole = min(self.cap, self.first * self.factor**exponent)
        return random.uniform(whole / 2, whole)


def next_due(schedule: Schedule, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
    """When the next tick is due, after ``last`` or at the beginning of a life.

    A tick that failed because of its connection is due again after the pause, even if the next due
    time of its schedule is a day away: its work is not done, and did not cause the failure. Any
    other failure can only delay the next due time.
    """
    if last is None or last.error is None:
        return schedule.due(last, begun, now)
    again = now.at_monotonic(last.ended.monotonic + last.pause)
    if last.problem is not None:
        return again
    return max(again, schedule.due(last, begun, now))  # the later one


def after_failure(
    iteration: Iteration,
    error: BaseException,
    last: Iteration | None,
    backoff: Backoff,
    *,
    cut_by_us: bool,
) -> Iteration:
    """The iteration with its error, the kind of problem, the number of failures in a row, and the
    pause before the next try.

    The first failure by a lost connection has no pause, because most losses are a restart or a
    dropped idle session. If daemonkit itself cut the connection, there is a pause.
    """
    problem = classify(error)
    failures = 1 + (last.failures if last else 0)
    worked = problem is Problem.LOST and iteration.seconds >= WORKED_SECONDS and not cut_by_us
    outages = (problem is Problem.UNREACHABLE or worked) + (last.outages if last else 0)
    at_once = problem is Problem.LOST and failures == 1 and not cut_by_us
    pause = 0.0 if at_once else backoff.pause(failures)
    return iteration._replace(
        error=error,
        problem=problem,
        failures=failures,
        outages=outages,
        pause=pause,
    )
