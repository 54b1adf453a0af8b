"""What only some starts need: an election, a scheduler of jobs, or a trial of new code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from daemonkit.connections.private_session import PrivateSessions
from daemonkit.connections.units import is_in_callers_transaction
from daemonkit.errors import classify

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.jobs.scheduler import Scheduler
    from daemonkit.leading.leader import Leadership
    from daemonkit.settings.settings import Settings


def parts_of(daemon: Daemon, settings: Settings) -> tuple[Leadership | None, Scheduler | None]:
    """What a daemon with a leader, or with jobs, needs under these settings."""
    leadership = scheduler = sessions = None
    if not is_in_callers_transaction():
        terms = settings.terms
        sessions = PrivateSessions(daemon.name, terms.statement_timeout if terms else None)
    if sessions is not None and settings.terms is not None and settings.leader:
        from daemonkit.leading.leader import Leadership

        leadership = Leadership(daemon, settings.terms, sessions.claims, settings.clock)
    if settings.jobs:
        from daemonkit.jobs.scheduler import Scheduler

        scheduler = Scheduler(daemon.name, settings, sessions)
    return leadership, scheduler


def check_code(command: BaseCommand, options: dict[str, Any]) -> None:
    """Run the system checks without a database: an outage says nothing about the code."""
    arguments: dict[str, Any] = dict(command.get_check_kwargs(options))  # type: ignore[arg-type]
    try:
        command.check(**{**arguments, "databases": []})
    except Exception as error:
        if classify(error) is None:
            raise
