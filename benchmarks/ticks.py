"""A tick of one SELECT 1: daemonkit's loop, a bare loop, and Django's care by hand."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from benchmarks.contestants import Servers, contest
from benchmarks.table import Spread, Table, Verdict, micros, missing

TARGET = 1.25
AGES = (0, 300, None)
SETTINGS: list[dict[str, Any]] = [
    {"age": age, "health": health} for age, health in itertools.product(AGES, (False, True))
]
COMMANDS = {
    "bare": ("bare_ticks",),
    "by hand": ("bare_ticks", "--by-hand"),
    "daemonkit": ("kept_ticks",),
}

Times = dict[tuple[int, str], list[float]]
"""Seconds a tick, round by round, by settings and contestant."""


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    places = {
        "MariaDB over a socket": (servers.mariadb, True),
        "MariaDB over TCP": (servers.mariadb, False),
        "PostgreSQL over a socket": (servers.postgresql, True),
    }
    for place, (server, socket) in places.items():
        title = f"A tick of one SELECT 1 on {place}, against a bare loop on a kept connection"
        if server is None:
            yield missing(title, "no such server, or no driver for it")
            continue
        times = rounds(server.settings(socket=socket), quick=quick)
        yield table(title, times, has_target=place == "MariaDB over a socket")


def rounds(database: dict[str, Any], *, quick: bool) -> Times:
    """Generations of processes, because each has its luck with memory; in each, rounds."""
    generations, count, ticks = (1, 2, 20) if quick else (3, 8, 1000)
    times: Times = defaultdict(list)
    for _ in range(generations):
        with contest(COMMANDS, database) as contestants:
            for number, which in itertools.product(range(-1, count), range(len(SETTINGS))):
                names = list(COMMANDS)
                shift = number % len(names)
                for name in names[shift:] + names[:shift]:
                    # By hand and with Django's default each tick is a new connection.
                    few = name == "by hand" and SETTINGS[which]["age"] == 0
                    asked = ticks // 25 + 1 if few else ticks
                    seconds = contestants[name].ask(ticks=asked, **SETTINGS[which])
                    if number >= 0:  # the one before warms up
                        times[which, name].append(seconds)
    return times


def table(title: str, times: Times, *, has_target: bool) -> Table:
    made = Table(title, ("settings", "bare", "by hand", "middle half", "daemonkit", "middle half"))
    for which, settings in enumerate(SETTINGS):
        bare = times[which, "bare"]
        cells = [settings_text(**settings), micros(Spread.of(bare).median)]
        for name in ("by hand", "daemonkit"):
            ratios = Spread.of_ratios(times[which, name], bare)
            cells += ratios.cells
        verdict = Verdict(ratios.median, TARGET) if has_target else None
        made.add(*cells, verdict=verdict)
    return made


def settings_text(age: int | None, health: bool) -> str:
    return f"CONN_MAX_AGE={age}, health checks {'on' if health else 'off'}"
