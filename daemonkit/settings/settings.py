"""A daemon's settings for one run: its class attributes, overridden by options of the same name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings

from daemonkit.clock import Clock
from daemonkit.schedules.base import Schedule
from daemonkit.settings.parsing import at_least_one, count, seconds, seconds_or_none, size, usage
from daemonkit.settings.schedule import schedule_of

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.jobs.job import Job
    from daemonkit.leading.terms import Terms


_LIMITS = ("once", "max_ticks", "max_seconds", "max_memory", "until_empty", "max_work")


class Settings:
    """The settings of one run. Times are in seconds, memory in bytes; None means no limit.

    Raises ``CommandError`` (exit code 2), in one sentence, for invalid values or combinations.
    """

    def __init__(
        self, daemon: Daemon, options: Mapping[str, Any], *, supervised: bool = False
    ) -> None:
        value = partial(_value, daemon, options)
        self.once = bool(options.get("once"))
        self.schedule = schedule_of(daemon, options, once=self.once)
        self.jobs = self.schedule.jobs
        self.has_jobs = bool(self.jobs) or hasattr(daemon, "add_jobs")
        self.pulse = seconds("pulse", value("pulse"))
        self.stop_timeout = seconds("stop_timeout", value("stop_timeout"))
        self.tick_timeout = seconds_or_none("tick_timeout", value("tick_timeout"))
        self.shortest_tick_timeout = self.tick_timeout
        if self.jobs:
            from daemonkit.settings.job_schedules import shortest_tick_timeout  # not for a loop

            self.shortest_tick_timeout = shortest_tick_timeout(self.tick_timeout, self.jobs)
        self.max_failures = count("max_failures", value("max_failures"))
        once_each = self.schedule.runs_once
        self.max_ticks = once_each if self.once else count("max_ticks", value("max_ticks"))
        self.max_seconds = seconds_or_none("max_seconds", value("max_seconds"))
        self.until_empty = bool(options.get("until_empty"))
        self.max_work = count("max_work", options.get("max_work"))
        self.threads = 1 if daemon.serial else at_least_one("threads", value("threads"))
        expected = daemon.expect_success_within
        self.expect_success_within = seconds_or_none("expect_success_within", expected)
        self.ledger = bool(daemon.ledger)
        self.again = bool(options.get("again"))
        if self.again and not options.get("due"):
            raise usage("--again is for --due, which names the due times")
        self.leader = leads(daemon, options)
        self.terms = _terms(daemon, options, self.jobs)
        self.max_memory = size("max_memory", value("max_memory"))
        self.workers = _workers(daemon, options, self.schedule)
        self.supervised = supervised
        self.raise_errors = self._raises_errors(daemon, options)
        self.typed = frozenset(name for name in _LIMITS if options.get(name))
        self.may_restart = daemon.is_started_by_shell and not self.typed - {"max_memory"}
        """Whether SIGHUP re-executes the process. Not if a typed limit ends this run, and not in a
        program that runs the daemon by ``call_command()``."""
        self.waits_for_migrations = (
            bool(daemon.wait_for_migrations)
            and daemon.is_started_by_shell
            and not self.once
            and not settings.DEBUG
        )
        self.uses_our_tables = (
            self.leader or bool(daemon.wake_on) or (self.ledger and self.has_jobs)
        )
        """Whether this run uses tables of daemonkit's."""
        self.verbosity = int(options.get("verbosity", 1))
        self.log_format: str | None = options.get("log_format")
        self.clock: Clock = options.get("clock") or Clock()

    def _raises_errors(self, daemon: Daemon, options: Mapping[str, Any]) -> bool:
        """Whether a failed tick raises its error: by default for ``call_command()``, not for a
        daemon that a shell has started."""
        value = options.get("raise_errors")
        is_alone = self.workers == 1 and not self.supervised
        return bool(value) if value is not None else is_alone and not daemon.is_started_by_shell


def _value(daemon: Daemon, options: Mapping[str, Any], name: str) -> Any:
    """The option of this name, or the class attribute if the option was not given."""
    value = options.get(name)
    return getattr(daemon, name) if value is None else value


def _workers(daemon: Daemon, options: Mapping[str, Any], schedule: Schedule) -> int:
    """How many processes run the loop. Raises ``CommandError`` if several make no sense."""
    workers = at_least_one("workers", _value(daemon, options, "workers"))
    if workers == 1:
        return 1
    from daemonkit.settings.several import workers_of  # not for a plain loop

    return workers_of(workers, daemon, options, schedule, leads=leads(daemon, options))


def leads(daemon: Daemon, options: Mapping[str, Any]) -> bool:
    """Whether the daemon has a leader."""
    return bool(_value(daemon, options, "leader"))


def _terms(daemon: Daemon, options: Mapping[str, Any], jobs: Sequence[Job]) -> Terms | None:
    """The times of the lease and of claims; None without a leader, an exclusive job or added jobs,
    unless options set them."""
    names = ("lease", "renew_deadline", "renew_every")
    claims = any(job.exclusive for job in jobs) or hasattr(daemon, "add_jobs")
    is_needed = leads(daemon, options) or claims
    if not is_needed and all(options.get(name) is None for name in names):
        return None
    from daemonkit.settings.several import terms_of  # not for a plain loop

    return terms_of(*(_value(daemon, options, name) for name in names))
