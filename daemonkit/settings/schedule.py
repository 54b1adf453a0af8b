"""The schedule of a daemon: that of its class, unless an option overrides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daemonkit.schedules.base import Schedule
from daemonkit.schedules.every import Every
from daemonkit.settings.attributes import has_jobs
from daemonkit.settings.parsing import seconds, that_fires, usage

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon


def schedule_of(daemon: Daemon, options: Mapping[str, Any], *, once: bool = False) -> Schedule:
    """The schedule of a daemon under these options. Raises ``CommandError`` if it has none."""
    if daemon.has_serve:
        from daemonkit.settings.server import schedule_of_server  # not for a plain loop

        return schedule_of_server(daemon, options)
    every = options.get("every")
    if has_jobs(type(daemon)):
        from daemonkit.settings.job_schedules import schedule_of_jobs  # not for a plain loop

        return schedule_of_jobs(daemon, options, once=once)
    if options.get("job"):
        raise usage(f"{daemon.name} has no jobs: --job is for a daemon that has")
    if options.get("due"):
        from daemonkit.settings.job_schedules import schedule_of_past_ticks  # not for a plain loop

        return schedule_of_past_ticks(daemon, options, once=once)
    schedule = _schedule_of_tick(daemon, options, once=once)
    if every is None and not once and (daemon.catch_up or daemon.jitter):
        from daemonkit.settings.job_schedules import with_fixed_times  # not for a plain loop

        return with_fixed_times(daemon, schedule)
    return schedule


def _schedule_of_tick(daemon: Daemon, options: Mapping[str, Any], *, once: bool) -> Schedule:
    every, cron = options.get("every"), options.get("cron")
    if every is not None and cron is not None:
        raise usage("say --every or --cron, not both")
    if every is not None:
        return Every(seconds("every", every))
    if cron is not None:
        from daemonkit.schedules.cron import Cron

        try:
            return Cron(cron)
        except ValueError as error:
            raise usage(f"--cron: {error}") from None
    if once:
        from daemonkit.schedules.once import Once

        return Once()
    schedule = options.get("schedule") or daemon.schedule
    if schedule is not None:
        try:
            return that_fires(daemon.name, _as_schedule(schedule), options)
        except ValueError as error:
            raise usage(f"{daemon.name}: {error}") from None
    hint = " (interval is not a setting)" if hasattr(daemon, "interval") else ""
    raise usage(f"{daemon.name} {daemon.missing_schedule}{hint}")


def _as_schedule(value: Any) -> Schedule:
    if isinstance(value, Schedule):
        return value
    from daemonkit.schedules.triggers import as_schedule

    return as_schedule(value)
