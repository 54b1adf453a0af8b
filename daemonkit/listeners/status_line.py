"""The status line of a daemon: what it does, its last tick, and when the next one is due."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from daemonkit.clock import Moment
from daemonkit.errors import one_line
from daemonkit.iteration import Iteration

LINE_LENGTH = 300
"""Characters of a line; the rest is cut off."""


class Running(NamedTuple):
    """A tick that runs: its number, and its start on the wall clock."""

    number: int
    since: float


class Line:
    """Collects the state of a daemon. ``str()`` puts it into words.

    Collecting must be cheap: a loop may tick ten thousand times a second, and few of those ticks
    are ever shown.
    """

    def __init__(self) -> None:
        self.doing = "starts"
        self.ending = ""
        self.override = ""
        self.standing_by = ""
        self.pauses: dict[str, str] = {}
        self.failed_reload = ""
        self.starts = ""
        self.messages: dict[str, str] = {}
        self.running: dict[str, Running] = {}
        self.due: Moment | None = None
        self.last: Iteration | None = None

    def begun(self, job: str, number: int) -> None:
        self.messages.pop(job, None)
        self.running[job] = Running(number, time.time())
        if not job:
            self.due = None

    def ended(self, iteration: Iteration) -> None:
        self.last = iteration if iteration.result is None else _without_result(iteration)
        self.messages.pop(iteration.job, None)
        self.running.pop(iteration.job, None)

    def awaits(self, error: Exception, seconds: float) -> None:
        self.doing = (
            f"waits for the database, next try at {_at(time.time() + seconds)}: {one_line(error)}"
        )

    def awaits_migrations(self, migrations: str) -> None:
        self.doing = f"waits for migrations: {migrations}"

    def __str__(self) -> str:
        is_overridden = self.override and not self.ending
        parts = [self.override] if is_overridden else self._parts()
        text = "; ".join([*parts, *filter(None, (self.failed_reload, self.starts))])
        return " ".join(text.split())[:LINE_LENGTH]

    def _parts(self) -> list[str]:
        running = [
            _running(job, tick, self.messages.get(job, ""))
            for job, tick in sorted(self.running.copy().items())
        ]
        if self.ending:
            return [self.ending + (f", waits for {running[0]}" if running else ""), *running[1:]]
        parts = running or [self.pauses.get("") or self.standing_by or self.doing]
        parts += [f"{job} is {text}" for job, text in sorted(self.pauses.copy().items()) if job]
        if self.due is not None and not self.standing_by:
            parts.append(f"next at {_at(self.due.wall)}")
        if self.last is not None:
            parts.append(_outcome(self.last))
        return parts


def paused_text(by: str, why: str, seconds: float | None) -> str:
    """Who has paused something, until when and why."""
    until = "" if seconds is None else f" until {_at(time.time() + seconds)}"
    return f"paused by {by or 'somebody'}{until}{f': {why}' if why else ''}"


def _running(job: str, tick: Running, message: str) -> str:
    progress = f": {message}" if message else ""
    return f"{_named(job, tick.number)} runs since {_at(tick.since)}{progress}"


def _outcome(iteration: Iteration) -> str:
    name = _named(iteration.job, iteration.number)
    if iteration.error is None:
        return f"{name} took {_lasted(iteration.seconds)}{_result(iteration.result)}"
    return (
        f"{name} failed after {_lasted(iteration.seconds)}, {iteration.failures} in a row: "
        f"{one_line(iteration.error)}"
    )


def _without_result(iteration: Iteration) -> Iteration:
    """Return the iteration without its result, unless that is a short text or a number."""
    result = iteration.result
    kind = type(result)
    if kind in (bool, int, float) or (kind is str and len(result) <= LINE_LENGTH):
        return iteration
    return iteration._replace(result=result[:LINE_LENGTH] if kind is str else None)


def _result(result: Any) -> str:
    return f": {result}" if result and result is not True else ""


def _named(job: str, number: int) -> str:
    return f"{job} {number}" if job else f"tick {number}"


def _lasted(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _at(wall: float) -> str:
    """Format a time in Django's time zone, with the zone's name; with the date if not today."""
    then = time.localtime(wall)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S %Z" if today else "%Y-%m-%d %H:%M:%S %Z", then)
