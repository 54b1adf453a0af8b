"""A tick of one SELECT 1: daemonkit's loop, a bare loop, and Django's care by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from benchmarks.frame import Effort, Series
from benchmarks.servers import Servers
from benchmarks.table import Table, Verdict, micros, missing
from lab.contestants import Bare, ByHand, Daemonkit, contest

TARGET = 1.25
AGES = (0, 300, None)
SETTINGS: list[dict[str, Any]] = [
    {"age": age, "health": health} for age, health in itertools.product(AGES, (False, True))
]
CONTESTANTS = (Bare("bare_ticks"), ByHand("bare_ticks", "--by-hand"), Daemonkit("kept_ticks"))
REFERENCE = "a bare loop on a connection that is kept, with the same settings"


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
        series = measured(server.settings(socket=socket), quick=quick)
        yield table(title, series, has_target=place == "MariaDB over a socket")


def measured(database: dict[str, Any], *, quick: bool) -> Series:
    series = Series(Effort(1, 2, 20) if quick else Effort(3, 8, 1000))
    for _ in series.generations():
        with contest(CONTESTANTS, database) as processes:
            for names in series.rounds(processes):
                for which, name in itertools.product(range(len(SETTINGS)), names):
                    # By hand and with Django's default each tick is a new connection.
                    few = name == "by hand" and SETTINGS[which]["age"] == 0
                    ticks = series.effort.units // 25 + 1 if few else series.effort.units
                    seconds = processes[name].ask(ticks=ticks, **SETTINGS[which])
                    series.note((which, name), seconds)
    return series


def table(title: str, series: Series, *, has_target: bool) -> Table:
    columns = ("settings", "bare", "by hand", "middle half", "daemonkit", "middle half")
    made = Table(title, columns, REFERENCE, str(series.effort))
    for which, settings in enumerate(SETTINGS):
        bare = series.spread((which, "bare"))
        hand, ours = (series.ratios((which, n), (which, "bare")) for n in ("by hand", "daemonkit"))
        cells = (settings_text(**settings), micros(bare.median), *hand.cells, *ours.cells)
        verdict = Verdict(ours.median, TARGET) if has_target else None
        made.add(*cells, verdict=verdict, bare=bare, by_hand=hand, daemonkit=ours)
    return made


def settings_text(age: int | None, health: bool) -> str:
    return f"CONN_MAX_AGE={age}, health checks {'on' if health else 'off'}"
