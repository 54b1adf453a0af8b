"""``daemons next NAME``: the next due times of one daemon."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError

from daemonkit.clock import Clock, Moment
from daemonkit.discovery import find_daemon
from daemonkit.exits import Exit
from daemonkit.jobs.schedule import AddedToo, Jobs
from daemonkit.management.actions.action import Action, Request
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.poll import Poll
from daemonkit.settings.schedule import schedule_of

LONGEST_LIST = 200
"""How many due times are printed at most; "and so on" stands for the others."""


class NextDueTimes(Action):
    name = "next"
    help = "the next due times of one daemon"
    has_format = True

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("name")
        parser.add_argument("--hours", type=float, default=24.0)

    def run(self, request: Request) -> None:
        name, hours = request.options["name"], request.options["hours"]
        schedule = schedule_of(find_daemon(name), {})
        if not hours > 0:
            raise CommandError("--hours must be above zero", returncode=Exit.USAGE)
        found = list(itertools.islice(_due_times(schedule, hours), LONGEST_LIST + 1))
        shown = found[:LONGEST_LIST]
        if request.wants_json:
            times = [_as_json(*each) for each in shown]
            request.print_json({"name": name, "schedule": str(schedule), "due": times})
            return
        if isinstance(schedule, Poll):
            request.print(f"{name} polls: at once while there is work; if there is none:")
        for due, job in shown:
            request.print(f"{_text(due)}  {job}".rstrip())
        if not found:
            request.print(f"Nothing within {hours:g} hours.")
        if len(found) > LONGEST_LIST:
            request.print(f"... and so on: {schedule}")
        if isinstance(schedule, AddedToo):
            request.print("Jobs of add_jobs() are known only to the daemon while it runs.")


def _due_times(schedule: Schedule, hours: float) -> Iterator[tuple[datetime, str]]:
    """Return the due times within ``hours``, each with its job: "" for a loop's tick."""
    now = Clock().moment()
    until = now.wall + hours * 3600
    return itertools.takewhile(
        lambda found: found[0].timestamp() <= until, _upcoming(schedule, now)
    )


def _upcoming(schedule: Schedule, now: Moment) -> Iterator[tuple[datetime, str]]:
    if isinstance(schedule, Jobs):
        return ((due, job.name) for due, job in schedule.upcoming_jobs(now))
    return ((due, "") for due in schedule.upcoming(now))


def _as_json(due: datetime, job: str) -> str | dict[str, str]:
    return {"due": _text(due), "job": job} if job else _text(due)


def _text(due: datetime) -> str:
    return due.isoformat(" ", "seconds")
