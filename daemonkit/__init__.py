"""daemonkit: Django's long-running processes, on healthy database connections."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from daemonkit.clock import Clock, Moment
from daemonkit.command import BaseDaemonCommand
from daemonkit.connections.holding import release_connections
from daemonkit.connections.units import fresh_connections
from daemonkit.errors import Problem, classify
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration
from daemonkit.schedules.backoff import Backoff
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.every import Every

if TYPE_CHECKING:
    from daemonkit.connections.pool import Pool
    from daemonkit.jobs.job import job
    from daemonkit.leading.fencing import StaleEpoch, guarded
    from daemonkit.pollers.poller import ModelPoller
    from daemonkit.resources import resource
    from daemonkit.schedules.cron import Cron
    from daemonkit.schedules.poll import Poll
    from daemonkit.waking.sender import wake

__all__ = [
    "Backoff",
    "BaseDaemonCommand",
    "Clock",
    "Cron",
    "Every",
    "Exit",
    "Iteration",
    "ModelPoller",
    "Moment",
    "Poll",
    "Pool",
    "Problem",
    "Schedule",
    "StaleEpoch",
    "classify",
    "fresh_connections",
    "guarded",
    "job",
    "release_connections",
    "resource",
    "wake",
]
__version__ = "0.1.0"

_LAZY = {
    "Cron": "daemonkit.schedules.cron",
    "ModelPoller": "daemonkit.pollers.poller",
    "Poll": "daemonkit.schedules.poll",
    "Pool": "daemonkit.connections.pool",
    "StaleEpoch": "daemonkit.leading.fencing",
    "guarded": "daemonkit.leading.fencing",
    "job": "daemonkit.jobs.job",
    "resource": "daemonkit.resources",
    "wake": "daemonkit.waking.sender",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
