"""The status as text for people: by rich where it is installed and the output is a terminal, and
plain elsewhere."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Sequence
from typing import IO, Any

from daemonkit.schedules.durations import duration_text
from daemonkit.status.account import State, pause_text
from daemonkit.status.reading import Seen
from daemonkit.status.rows import Given

WIDTH = 80
"""Columns of the plain text."""

NOTICEABLE = 0.1
"""A change of the duration below this is not shown."""

_COLORS = {
    State.SILENT: "bold red",
    State.ENDED: "red",
    State.BACKING_OFF: "yellow",
    State.PAUSED: "magenta",
    State.STOPPING: "yellow",
    State.STARTING: "cyan",
}


def plain(processes: Sequence[Seen], pauses: dict[str, list[Given]]) -> str:
    """The status, readable at 80 columns."""
    lines: list[str] = []
    for each in processes:
        lines += _wrapped(f"{each.name}  {each.place}  {_state(each)}")
        for facts in (_work(each), _origin(each)):
            lines += _wrapped("; ".join(facts), "  ")
        if each.last_error:
            lines += _wrapped(f"last error: {each.last_error}", "  ")
    return "\n".join([*lines, *_pauses(pauses)]) or "No process of a daemon has a row."


def has_rich(stream: IO[str] | Any) -> bool:
    """Whether to draw tables here."""
    return bool(stream.isatty()) and importlib.util.find_spec("rich") is not None


def draw(stream: Any, processes: Sequence[Seen], pauses: dict[str, list[Given]]) -> None:
    """The status as a table of rich's."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("daemon", "process", "state", "work", "last error"):
        table.add_column(column, overflow="fold")
    for each in processes:
        state = Text(_state(each), style=_COLORS.get(State(each.state), "green"))
        facts = "\n".join([*_work(each), *_origin(each)])
        table.add_row(each.name, each.place, state, facts, Text(each.last_error))
    console = Console(file=stream)
    console.print(table)
    for line in _pauses(pauses):
        console.print(Text(line))


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _state(process: Seen) -> str:
    detail = f" ({process.detail})" if process.detail else ""
    if process.state == State.SILENT:
        return f"silent for {_span(process.since)}, was {process.last_state}{detail}"
    return f"{process.state} for {_span(process.since)}{detail}"


def _work(process: Seen) -> list[str]:
    facts = [f"{process.ticks} tick{'s' * (process.ticks != 1)}, {process.failures} failed"]
    if process.success_ago is not None:
        facts.append(f"last success {_span(process.success_ago)} ago")
    if process.last_seconds is not None:
        facts.append(f"took {duration_text(process.last_seconds)}{_change(process)}")
    if process.due_in is not None:
        facts.append(f"next in {_span(max(0.0, process.due_in))}")
    if process.backlog is not None:
        facts.append(f"backlog {process.backlog}")
    if process.dead_letters is not None:
        facts.append(f"{process.dead_letters} dead letters")
    return facts


def _change(process: Seen) -> str:
    change = process.change
    return f" ({change:+.0%})" if change is not None and abs(change) >= NOTICEABLE else ""


def _origin(process: Seen) -> list[str]:
    times = "once" if process.starts == 1 else f"{process.starts} times"
    within = f", {times} within the hour" if process.starts else ""
    started = f"started {_span(process.started_ago)} ago{within}"
    return [started, *([f"version {process.version}"] if process.version else [])]


def _pauses(pauses: dict[str, list[Given]]) -> list[str]:
    lines: list[str] = []
    for daemon, given in pauses.items():
        for each in given:
            what = f"{daemon} {each.job}".rstrip()
            lines += _wrapped(f"{what} is paused {pause_text(each.by, each.why, each.left)}")
    return lines


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{max(0.0, seconds):.0f}s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour}h"
    return f"{hours}h{minute:02}m" if hours else f"{minutes}m{second:02}s"
