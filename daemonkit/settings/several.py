"""The settings of daemons that run as several processes: workers, and the times of a lease."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daemonkit.leading.terms import Terms
from daemonkit.schedules.base import Schedule
from daemonkit.settings.parsing import seconds, seconds_or_none, usage

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon


def workers_of(
    workers: int, daemon: Daemon, options: Mapping[str, Any], schedule: Schedule, *, leads: bool
) -> int:
    """How many processes run the loop. Raises ``CommandError`` if several make no sense."""
    for name in ("once", "reload"):
        if options.get(name):
            if options.get("workers") is not None:
                raise usage(f"--{name} is for one process: say it without --workers")
            return 1
    if leads:
        raise usage(f"{daemon.name}: one of {workers} workers would lead and the others never "
                     f"tick; say leader or workers, not both")  # fmt: skip
    if not schedule.is_shareable and not daemon.per_worker:
        mend = "mark them exclusive=True, or " if schedule.jobs else ""
        raise usage(
            f"{daemon.name}: each of {workers} workers would do the same work, {schedule}; {mend}"
            f"if that is what you want, write per_worker = True in its class"
        )
    return workers


def terms_of(lease: Any, renew_deadline: Any, renew_every: Any) -> Terms:
    """The times of a lease. Raises ``CommandError`` if they do not fit together."""
    terms = Terms.of(
        seconds("lease", lease),
        seconds_or_none("renew_deadline", renew_deadline),
        seconds_or_none("renew_every", renew_every),
    )
    if complaint := terms.complaint():
        raise usage(complaint)
    return terms
