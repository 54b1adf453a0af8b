"""Units of work that do nothing: what daemonkit itself costs, listener by listener."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from benchmarks.contestants import SQLITE, Contestant, Servers
from benchmarks.table import Spread, Table, Verdict, micros

ROWS = {
    "by hand": ("two bare close_old_connections()", None),
    "block": ("with fresh_connections: pass", 1.5),
    "tick": ("an empty tick through the loop, no listeners", 4.0),
    "notify": ("... with systemd listening (Type=notify)", None),
    "log": ("... with the log (-v 1 writes no line for a good tick)", None),
    "log, -v 2": ("... with the log at -v 2, a line for each tick", None),
    "receiver": ("... with a receiver of iteration_finished that does nothing", None),
}


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    server = servers.mariadb
    where = "MariaDB" if server else "SQLite"
    times = rounds(server.settings() if server else dict(SQLITE), quick=quick)
    made = Table(
        f"Nothing to do, one alias, its connection to {where} open and kept",
        ("what", "median", "ratio", "middle half"),
    )
    for name, (what, most) in ROWS.items():
        ratios = Spread.of_ratios(times[name], times["by hand"])
        verdict = Verdict(ratios.median, most) if most else None
        made.add(what, micros(Spread.of(times[name]).median), *ratios.cells, verdict=verdict)
    yield made


def rounds(database: dict[str, object], *, quick: bool) -> dict[str, list[float]]:
    generations, count, units = (1, 2, 200) if quick else (3, 15, 1000)
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(generations):
        with Contestant("kept_empty", database=database) as contestant:
            for number in range(-1, count):
                for name in ROWS:
                    seconds = contestant.ask(what=name, times=units, age=300, health=False)
                    if number >= 0:
                        times[name].append(seconds)
    return times
