"""The optional parts of a life: an election, jobs, the status, wake-ups."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from daemonkit.connections.private_session import PrivateSessions
from daemonkit.connections.units import is_in_callers_transaction

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.jobs.scheduler import Scheduler
    from daemonkit.leading.leader import Leadership
    from daemonkit.settings.settings import Settings
    from daemonkit.status.steering import Steering
    from daemonkit.waking.waker import Waker


class Parts(NamedTuple):
    """What a daemon has beside its ticks. Each is None if it does not need it."""

    leadership: Leadership | None = None
    steering: Steering | None = None
    waker: Waker | None = None
    scheduler: Scheduler | None = None


def parts_of(daemon: Daemon, settings: Settings) -> Parts:
    """The parts that a daemon needs under these settings. Each is imported only if it does.

    In a transaction of the caller there are only jobs, which run in it."""
    leadership = steering = waker = scheduler = sessions = None
    if not is_in_callers_transaction():
        terms = settings.terms
        sessions = PrivateSessions(daemon.name, terms.statement_timeout if terms else None)
        if settings.leader and terms is not None:
            from daemonkit.leading.leader import Leadership

            leadership = Leadership(daemon, terms, sessions.claims, settings.clock)
        if daemon.is_started_by_shell and not settings.once:
            from daemonkit.status.wanted import steering_of

            steering = steering_of(daemon, sessions)
        if daemon.wake_on and not settings.once:
            from daemonkit.waking.waker import Waker

            waker = Waker(daemon, daemon.wake_on, settings.pulse, settings.clock)
    if settings.has_jobs:
        from daemonkit.jobs.scheduler import Scheduler

        scheduler = Scheduler(daemon.name, settings, sessions)
    return Parts(leadership, steering, waker, scheduler)
