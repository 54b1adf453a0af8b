"""Reads what processes say of themselves, and the pauses. Raises the errors of the database."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from daemonkit import conf
from daemonkit.models import Order, Process
from daemonkit.process.identity import parse_identity
from daemonkit.status.account import State
from daemonkit.status.database_time import SecondsSince
from daemonkit.status.rows import Given, Verb, orders_for

SILENT_PULSES = 2.5
"""A process is silent if its row is older than this many of its pulses."""

HOUR = 3600.0

WORKING = (*(State.WAITING, State.TICKING, State.SERVING, State.BACKING_OFF, State.STANDING_BY),)
"""The states of a process that ticks, serves or stands by."""

_COPIED = (
    *("worker", "version", "detail", "pulse", "expect_success_within"),
    *("ticks", "failures", "last_error", "last_seconds", "backlog", "dead_letters"),
)


class Seen(NamedTuple):
    """A process as its row shows it. Times are in seconds, and count from now."""

    daemon: str
    host: str
    worker: int
    pid: int
    version: str
    detail: str
    pulse: float
    expect_success_within: float | None
    ticks: int
    failures: int
    last_error: str
    last_seconds: float | None
    backlog: int | None
    dead_letters: int | None
    state: str
    last_state: str
    """What a silent process did when it was last heard."""
    seen_ago: float
    started_ago: float
    since: float
    """How long ago its state began; for a silent process, its silence."""
    success_ago: float | None
    due_in: float | None
    trend: tuple[float, ...]
    starts: int
    """How often it was started within the last hour."""

    @property
    def name(self) -> str:
        return self.daemon if self.worker == 1 else f"{self.daemon}.{self.worker}"

    @property
    def place(self) -> str:
        return f"{self.host}:{self.pid}"

    @property
    def change(self) -> float | None:
        """How the last duration compares with the median of those before: 0.4 is 40 % more. None
        if there are too few."""
        before = self.trend[:-1]
        middle = statistics.median(before) if len(before) >= 2 else 0.0
        return self.trend[-1] / middle - 1 if middle > 0 else None

    def as_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "trend": list(self.trend), "change": self.change}


def read(names: Sequence[str] = ()) -> list[Seen]:
    """The processes of these daemons, or of all. One SELECT."""
    rows = Process.objects.using(conf.database()).annotate(age=SecondsSince("touched"))
    if names:
        rows = rows.filter(daemon__in=list(names))
    found = rows.values_list("key", "daemon", "age", "report")
    return sorted(_seen(*row) for row in found)


def _seen(key: str, daemon: str, age: float, text: str) -> Seen:
    report: Mapping[str, Any] = json.loads(text)
    process, state, pulse = parse_identity(key), report["state"], report["pulse"]
    copied: dict[str, Any] = {name: report.get(name) for name in _COPIED}
    is_silent = state != State.ENDED and age > SILENT_PULSES * pulse
    success, due = report.get("success_age"), report.get("due_in")
    return Seen(
        daemon=daemon,
        host=process.host,
        pid=process.pid,
        **copied,
        state=str(State.SILENT) if is_silent else state,
        last_state=state,
        seen_ago=age,
        started_ago=report["started_age"] + age,
        since=age if is_silent else report["state_age"] + age,
        success_ago=None if success is None else success + age,
        due_in=None if due is None or is_silent else due - age,
        trend=tuple(report.get("trend", ())),
        starts=sum(each + age < HOUR for each in report.get("starts", ())),
    )


def pauses(names: Sequence[str] = ()) -> dict[str, list[Given]]:
    """The pauses by daemon, of these daemons or of all."""
    rows = Order.objects.using(conf.database()).filter(verb=Verb.PAUSE)
    if names:
        rows = rows.filter(daemon__in=list(names))
    daemons = sorted(set(rows.values_list("daemon", flat=True)))
    found = {name: pauses_of(name) for name in daemons}
    return {name: given for name, given in found.items() if given}


def pauses_of(daemon: str) -> list[Given]:
    return [each for each in orders_for(daemon) if each.verb == Verb.PAUSE]
