"""``daemons pause``, ``resume``, ``run`` and ``stop``: orders to processes on every host."""

from __future__ import annotations

import time
from datetime import datetime
from datetime import time as Time
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from daemonkit.management.actions.action import Action, Request
from daemonkit.management.actions.status_database import (
    refuse_added,
    refuse_server,
    require_daemon,
    status_database,
)
from daemonkit.schedules.durations import duration_text, parse_duration
from daemonkit.settings.parsing import usage
from daemonkit.status import giving
from daemonkit.status.account import State, pause_text
from daemonkit.status.reading import Seen, pauses_of
from daemonkit.status.rows import Verb

LOOK_INTERVAL = 0.1
"""Seconds between two looks whether somebody has taken an order."""

MARGIN = 3.0
"""Seconds beyond a pulse in which a process should have read an order."""


def _what(options: dict[str, Any]) -> str:
    return f"{options['name']} {options['job']}" if options.get("job") else str(options["name"])


def _add_name(parser: Any, *, job: str = "") -> None:
    parser.add_argument("name", metavar="NAME", help="the daemon")
    if job:
        parser.add_argument("--job", metavar="JOB", default="", help=job)


class Pause(Action):
    name = "pause"
    help = "let a daemon or one of its jobs wait; it survives restarts and deploys"

    def add_arguments(self, parser: Any) -> None:
        _add_name(parser, job="only this job")
        parser.add_argument(
            "--until", metavar="TIME", help="end by itself: 2h, 18:00, or '2026-11-01 03:00'"
        )
        parser.add_argument("--why", default="", metavar="TEXT", help="shown in log and status")

    def run(self, request: Request) -> None:
        options = request.options
        name, until = options["name"], options["until"]
        seconds = None if until is None else seconds_until(until)
        with status_database():
            require_daemon(name, options["job"])
            refuse_server(name)
            giving.pause(name, options["job"], seconds, options["why"])
            found = giving.receivers(name)
        ends = "" if seconds is None else f" for {duration_text(max(1, round(seconds)))}"
        request.print(f"{_what(options)} is paused{ends}. {_who_reads(found)}")


class Resume(Action):
    name = "resume"
    help = "end a pause"

    def add_arguments(self, parser: Any) -> None:
        _add_name(parser, job="the pause of this job")

    def run(self, request: Request) -> None:
        options = request.options
        with status_database():
            require_daemon(options["name"], options["job"])
            if not giving.resume(options["name"], options["job"]):
                raise CommandError(f"{_what(options)} is not paused")
            found = giving.receivers(options["name"])
        request.print(f"{_what(options)} goes on. {_who_reads(found)}")


class RunNow(Action):
    name = "run"
    help = "run a daemon's tick, or its jobs, now; the schedule goes on as before"

    def add_arguments(self, parser: Any) -> None:
        _add_name(parser, job="only this job")
        parser.add_argument("--force", action="store_true", help="also while it is paused")

    def run(self, request: Request) -> None:
        options = request.options
        name, job = options["name"], options["job"]
        with status_database():
            require_daemon(name, job)
            refuse_server(name)
            refuse_added(name, job)
            if not options["force"]:
                _refuse_paused(name, job)
            able = _require_receivers(name)
            key = giving.order(Verb.RUN, name, job=job)
            where = self._taken(key, max(each.pulse for each in able) + MARGIN)
        if not where:
            states = ", ".join(sorted({each.state for each in able}))
            raise CommandError(
                f"no process of {name} has taken the order to run {job or 'it'}, which is "
                f"withdrawn; its processes are {states}"
            )
        request.print(f"{_what(options)} runs now on {where}")

    def _taken(self, key: int, seconds: float) -> str:
        """Wait until somebody has taken the order. Returns who; "" if it was withdrawn."""
        until = time.monotonic() + seconds
        while not (where := giving.taken_by(key)):
            if time.monotonic() >= until and giving.withdraw(key):
                return ""
            time.sleep(LOOK_INTERVAL)
        return where


class StopNow(Action):
    name = "stop"
    help = "let the processes of a daemon end, as SIGTERM does"

    def add_arguments(self, parser: Any) -> None:
        _add_name(parser)
        parser.add_argument("--host", default="", metavar="HOST", help="only those on this host")

    def run(self, request: Request) -> None:
        order(request, Verb.STOP, request.options["name"], request.options["host"])


def order(request: Request, verb: Verb, name: str, host: str = "") -> None:
    """Give an order to all processes of a daemon, or to those on one host."""
    with status_database():
        require_daemon(name)
        found = _require_receivers(name, host)
        giving.order(verb, name, host=host)
    count = f"{len(found)} process{'es' * (len(found) != 1)}"
    request.print(f"{name}: {count} will {verb}. {_who_reads(found)}")


def seconds_until(text: str) -> float:
    """How many seconds from now a time, or a duration, is. Raises ``CommandError``."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        moment = _moment(text)
        seconds = (moment - timezone.now()).total_seconds()
    if seconds <= 0:
        raise usage(f"--until {text} has passed")
    return seconds


def _moment(text: str) -> datetime:
    zone = timezone.get_default_timezone()
    try:
        today = timezone.now().astimezone(zone).date()
        return datetime.combine(today, Time.fromisoformat(text), zone)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise usage(
            f"--until takes a time such as 18:00 or '2026-11-01 03:00', or a duration such as 2h, "
            f"not {text!r}"
        ) from None
    return found if found.tzinfo else timezone.make_aware(found, zone)


def _refuse_paused(name: str, job: str) -> None:
    for each in pauses_of(name):
        if not each.job or not job or each.job == job:
            what = f"{name} {each.job}".rstrip()
            raise usage(
                f"{what} is paused {pause_text(each.by, each.why, each.left)}; "
                f"`daemons resume` ends that, and --force runs it once"
            )


def _require_receivers(name: str, host: str = "") -> list[Seen]:
    found = giving.receivers(name, host)
    if not found:
        where = f" on {host}" if host else ""
        raise CommandError(
            f"no process of {name}{where} takes orders: `manage.py daemons status {name}` shows "
            f"what there is"
        )
    return found


def _who_reads(found: list[Seen]) -> str:
    if not found:
        return "None of its processes runs at the moment."
    within = duration_text(round(max(each.pulse for each in found), 1))
    starting = " once it is ready" if all(p.state == State.STARTING for p in found) else ""
    return f"Read within {within}{starting} by {giving.places(found)}."
