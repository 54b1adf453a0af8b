"""Checks a daemon that has ``serve()``. An error is one sentence, with exit code 2."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from daemonkit.schedules.base import Schedule
from daemonkit.schedules.served import Served
from daemonkit.settings.parsing import usage

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon

_FOR_TICKS = ("every", "cron", "once", "max_ticks", "job")


def check_serve(daemon: Daemon, serve: Callable[[], Any], has_tick: bool, has_jobs: bool) -> None:
    """Raise ``CommandError`` (exit code 2) if ``serve()`` cannot be this daemon's work."""
    name = daemon.name
    if has_tick:
        raise usage(f"{name} has a tick() and a serve(): write one or the other")
    if has_jobs:
        raise usage(f"{name} has jobs and a serve(): write one or the other")
    if inspect.isgeneratorfunction(serve) or inspect.isasyncgenfunction(serve):
        raise usage(f"{name}.serve() is a generator, which returns before it serves: no yield")


def schedule_of_server(daemon: Daemon, options: Mapping[str, Any]) -> Schedule:
    """The schedule of a server. Raises ``CommandError`` if it has another, or what only ticks
    have."""
    name = daemon.name
    if daemon.schedule is not None or options.get("schedule"):
        raise usage(f"{name} has a schedule and a serve(): a server has none; remove the schedule")
    for option in _FOR_TICKS:
        if options.get(option):
            flag = f"--{option.replace('_', '-')}"
            raise usage(f"{name} has a serve(), which runs until it is told to stop: no {flag}")
    for attribute in ("leader", "max_ticks"):
        if getattr(daemon, attribute, None) or options.get(attribute):
            raise usage(f"{name} has a serve(): {attribute} is for a daemon with a tick()")
    return Served()
