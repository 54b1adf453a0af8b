"""daemonkit: Django's long-running processes, on healthy database connections."""

from daemonkit.clock import Clock, Moment
from daemonkit.command import BaseDaemonCommand
from daemonkit.connections.pool import Pool
from daemonkit.connections.units import fresh_connections, release_connections
from daemonkit.errors import Problem, classify
from daemonkit.exits import Exit
from daemonkit.iteration import Iteration
from daemonkit.jobs.job import job
from daemonkit.leading.fencing import StaleEpoch, guarded
from daemonkit.schedules.backoff import Backoff
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.cron import Cron
from daemonkit.schedules.every import Every
from daemonkit.schedules.poll import Poll

__all__ = [
    "Backoff",
    "BaseDaemonCommand",
    "Clock",
    "Cron",
    "Every",
    "Exit",
    "Iteration",
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
]
__version__ = "0.1.0"
