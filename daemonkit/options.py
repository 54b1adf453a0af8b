"""A daemon's settings for one run: its class attributes, overridden by options of the same name."""

from __future__ import annotations

from argparse import ArgumentError, BooleanOptionalAction
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser

from daemonkit.clock import NEVER, Clock, Moment
from daemonkit.exits import Exit
from daemonkit.formats import FORMATS
from daemonkit.iteration import Iteration
from daemonkit.jobs import Job, Jobs, jobs_of, one_of
from daemonkit.lease import Terms
from daemonkit.memory import parse_size, resident
from daemonkit.schedules import Cron, Every, Poll, Schedule, Trigger, as_schedule, parse_duration

if TYPE_CHECKING:
    from daemonkit.command import BaseDaemonCommand

HANDED_IN = ("schedule", "clock")
"""Options that ``call_command`` takes and the command line does not: they are objects."""


@dataclass(frozen=True)
class Settings:
    """What holds for one run. Times are in seconds, memory in bytes; None means no bound."""

    schedule: Schedule
    pulse: float
    stop_timeout: float
    tick_timeout: float | None
    max_failures: int | None
    max_ticks: int | None
    max_seconds: float | None
    threads: int
    ledger: bool
    jobs: tuple[Job, ...] = ()
    leader: bool = False
    terms: Terms = field(default_factory=Terms)
    max_memory: int | None = None
    workers: int = 1
    once: bool = False
    supervised: bool = False
    clock: Clock = field(default_factory=Clock)

    @classmethod
    def of(cls, daemon: BaseDaemonCommand, options: Mapping[str, Any]) -> Settings:
        """The settings of a daemon under these options.

        Raises ``CommandError`` (exit code 2), in one sentence, for whatever does not fit.
        """
        once = bool(options.get("once"))

        def said(name: str) -> Any:
            value = options.get(name)
            return getattr(daemon, name) if value is None else value

        schedule = schedule_of(daemon, options, once=once)
        jobs = schedule.jobs if isinstance(schedule, Jobs) else ()
        return cls(
            schedule=schedule,
            pulse=_seconds("pulse", said("pulse")),
            stop_timeout=_seconds("stop_timeout", said("stop_timeout")),
            tick_timeout=_seconds_or_none("tick_timeout", said("tick_timeout")),
            max_failures=_count("max_failures", said("max_failures")),
            max_ticks=max(1, len(jobs)) if once else _count("max_ticks", said("max_ticks")),
            max_seconds=_seconds_or_none("max_seconds", said("max_seconds")),
            threads=_at_least_one("threads", said("threads")),
            ledger=bool(daemon.ledger),
            jobs=jobs,
            leader=leads(daemon, options),
            terms=_terms(
                _seconds("lease", said("lease")),
                _seconds_or_none("renew_deadline", said("renew_deadline")),
                _seconds_or_none("renew_every", said("renew_every")),
            ),
            max_memory=_size("max_memory", said("max_memory")),
            workers=_workers(daemon, options, schedule),
            once=once,
            supervised=bool(options.get("supervised")),
            clock=options.get("clock") or Clock(),
        )


def add_daemon_options(parser: CommandParser, name: str) -> None:
    """Add the options that every daemon has. Values are read by ``Settings.of``, so that a bad
    one is one sentence. Raises ``CommandError`` if one clashes with the daemon's own."""
    own = {action.dest for action in parser._actions}
    group = parser.add_argument_group("daemon options")
    for flag, details in _OPTIONS.items():
        destination = flag.lstrip("-").replace("-", "_")
        try:
            if destination in own:
                raise ArgumentError(None, destination)
            group.add_argument(flag, **details)
        except ArgumentError:
            raise CommandError(
                f"{name} has an option of its own that clashes with daemonkit's {flag}; "
                f"give yours another name",
                returncode=Exit.USAGE,
            ) from None


_OPTIONS: dict[str, dict[str, Any]] = {
    "--every": {"metavar": "TIME", "help": "Run every so often: 30s, 5m, 1h30m."},
    "--cron": {"metavar": "STRING", "help": 'Run at these times: "0 3 * * mon-fri".'},
    "--once": {"action": "store_true", "help": "Run one tick; exit with 1 if it failed."},
    "--max-ticks": {"metavar": "N", "help": "End after so many ticks."},
    "--max-seconds": {"metavar": "TIME", "help": "Start no tick after this time; end then."},
    "--max-memory": {"metavar": "SIZE", "help": "End after a tick that left more: 300m, 1g."},
    "--max-failures": {"metavar": "N", "help": "End with 75 after so many failures in a row."},
    "--job": {"metavar": "NAME", "action": "append", "help": "Of its jobs, run this one alone."},
    "--threads": {"metavar": "N", "help": "How many jobs may run at the same time."},
    "--tick-timeout": {"metavar": "TIME", "help": "Cut a tick that takes longer; none: never."},
    "--stop-timeout": {"metavar": "TIME", "help": "Time for the tick in flight when stopping."},
    "--leader": {"action": BooleanOptionalAction, "help": "Of all that run it, one ticks."},
    "--lease": {"metavar": "TIME", "help": "Time after which a silent leader is replaced."},
    "--renew-deadline": {"metavar": "TIME", "help": "Time after which a silent leader stops."},
    "--renew-every": {"metavar": "TIME", "help": "Time between two renewals of the lease."},
    "--pulse": {"metavar": "TIME", "help": "Longest time between two signs of life."},
    "--workers": {"metavar": "N", "help": "Run the loop in so many processes, for Poll()."},
    "--log-format": {"choices": FORMATS, "help": "auto: for the journal where stderr is one."},
    "--reload": {"action": "store_true", "help": "In development: restart on a code change."},
}


class _AtOnce(Schedule):
    """The schedule of ``--once``."""

    def __str__(self) -> str:
        return "once"

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        return begun if last is None else NEVER


def schedule_of(
    daemon: BaseDaemonCommand, options: Mapping[str, Any], *, once: bool = False
) -> Schedule:
    """The schedule of a daemon under these options. Raises ``CommandError`` if it has none."""
    every, cron = options.get("every"), options.get("cron")
    if jobs := jobs_of(type(daemon)):
        return _schedule_of_jobs(daemon, jobs, options, once=once)
    if options.get("job"):
        raise _usage(f"{daemon.name} has no jobs: --job is for a daemon that has")
    if every is not None and cron is not None:
        raise _usage("say --every or --cron, not both")
    if every is not None:
        return Every(_seconds("every", every))
    if cron is not None:
        try:
            return Cron(cron)
        except ValueError as error:
            raise _usage(f"--cron: {error}") from None
    if once:
        return _AtOnce()
    schedule = options.get("schedule") or daemon.schedule
    if schedule is not None:
        try:
            return _that_fires(daemon.name, as_schedule(schedule), options)
        except ValueError as error:
            raise _usage(f"{daemon.name}: {error}") from None
    hint = " (interval is not a setting)" if hasattr(daemon, "interval") else ""
    raise _usage(f"{daemon.name} {daemon.how_to_schedule}{hint}")


def _schedule_of_jobs(
    daemon: BaseDaemonCommand, jobs: tuple[Job, ...], options: Mapping[str, Any], *, once: bool
) -> Jobs:
    for said in ("every", "cron", "schedule"):
        if options.get(said) is not None:
            raise _usage(f"{daemon.name} has jobs with schedules of their own: no --{said} for it")
    if daemon.schedule is not None:
        raise _usage(f"{daemon.name} has jobs with schedules of their own, and a schedule beside "
                     f"them that nothing would run by; take it away")  # fmt: skip
    if not daemon.ledger and (job := next((job for job in jobs if job.needs_ledger), None)):
        raise _usage(
            f"{daemon.name} has ledger = False, and its job {job.name} needs it: exclusive=True "
            f"and catch_up=True go by the ledger's rows"
        )
    if names := options.get("job"):
        try:
            jobs = one_of(jobs, [names] if isinstance(names, str) else list(names))
        except ValueError as error:
            raise _usage(f"{daemon.name}: {error}") from None
    if once:
        return Jobs(tuple(replace(job, schedule=_AtOnce()) for job in jobs))
    for job in jobs:
        _that_fires(f"{daemon.name}, job {job.name}", job.schedule, options)
    return Jobs(jobs)


def _that_fires(name: str, schedule: Schedule, options: Mapping[str, Any]) -> Schedule:
    now = (options.get("clock") or Clock()).moment()
    if isinstance(schedule, Trigger) and schedule.due(None, now, now) == NEVER:
        raise _usage(f"{name}: the trigger {schedule} never fires, from now on")
    return schedule


def leads(daemon: BaseDaemonCommand, options: Mapping[str, Any]) -> bool:
    """Whether of all that run it one leads."""
    said = options.get("leader")
    return bool(daemon.leader if said is None else said)


def _terms(lease: float, renew_deadline: float | None, renew_every: float | None) -> Terms:
    terms = Terms.of(lease, renew_deadline, renew_every)
    if complaint := terms.complaint():
        raise _usage(complaint)
    return terms


def _seconds(name: str, value: Any) -> float:
    seconds = _seconds_or_none(name, value)
    if seconds is None:
        raise _usage(f"{_said(name)} needs a time; it cannot be none")
    return seconds


def _seconds_or_none(name: str, value: Any) -> float | None:
    if value is None or value == "none":
        return None
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise _usage(f"{_said(name)} takes {error}") from None
    if seconds <= 0:
        raise _usage(f"{_said(name)} must be above zero, not {value}")
    return seconds


def _count(name: str, value: Any) -> int | None:
    if value is None or value == "none":
        return None
    if not str(value).isascii() or not str(value).isdigit() or int(value) < 1:
        raise _usage(f"{_said(name)} takes a whole number above zero, not {value!r}")
    return int(value)


def _at_least_one(name: str, value: Any) -> int:
    count = _count(name, value)
    if count is None:
        raise _usage(f"{_said(name)} needs a number; it cannot be none")
    return count


def _size(name: str, value: Any) -> int | None:
    if value is None or value == "none":
        return None
    try:
        size = parse_size(value)
        resident()
    except ValueError as error:
        raise _usage(f"{_said(name)} takes {error}") from None
    except OSError:
        raise _usage(f"{_said(name)} needs Linux's /proc/self/statm") from None
    if size <= 0:
        raise _usage(f"{_said(name)} must be above zero, not {value}")
    return size


def _workers(daemon: BaseDaemonCommand, options: Mapping[str, Any], schedule: Schedule) -> int:
    """How many processes are to run the loop, if it makes sense that they be several."""
    said = options.get("workers")
    workers = _count("workers", daemon.workers if said is None else said)
    if workers is None:
        raise _usage("workers (--workers) needs a number; it cannot be none")
    for name in ("once", "reload"):
        if workers > 1 and options.get(name):
            if said is not None:
                raise _usage(f"--{name} is for one process: say it without --workers")
            return 1
    if workers > 1 and leads(daemon, options):
        raise _usage(f"{daemon.name}: one of {workers} workers would lead and the others never "
                     f"tick; say leader or workers, not both")  # fmt: skip
    shared = isinstance(schedule, Poll) or (
        isinstance(schedule, Jobs) and all(job.exclusive for job in schedule.jobs)
    )
    if workers > 1 and not shared and not daemon.per_worker:
        raise _usage(
            f"{daemon.name}: each of {workers} workers would do the same work, {schedule}; "
            f"if that is what you want, write per_worker = True in its class"
        )
    return workers


def _said(name: str) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if name == "every" else f"{name} ({flag})"


def _usage(sentence: str) -> CommandError:
    return CommandError(sentence, returncode=Exit.USAGE)
