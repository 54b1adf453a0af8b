"""Units of work that do nothing: what daemonkit itself costs, listener by listener."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.frame import Effort, Series
from benchmarks.servers import SQLITE, Servers
from benchmarks.table import Table, Verdict, micros
from lab.contestants import Daemonkit

ROWS = {
    "by hand": ("two bare close_old_connections()", None),
    "block": ("with fresh_connections: pass", 0.5),
    "tick": ("an empty tick through the loop, no listeners", 1.5),
    "notify": ("... with systemd listening (Type=notify)", None),
    "log": ("... with the log (-v 1 writes no line for a good tick)", None),
    "log, -v 2": ("... with the log at -v 2, a line for each tick", None),
    "receiver": ("... with a receiver of iteration_finished that does nothing", None),
}


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    server = servers.mariadb
    where = "MariaDB" if server else "SQLite"
    series = measured(server.settings() if server else dict(SQLITE), quick=quick)
    made = Table(
        f"Nothing to do, one alias, its connection to {where} open and kept",
        ("what", "median", "ratio", "middle half"),
        ROWS["by hand"][0],
        str(series.effort),
    )
    for name, (what, most) in ROWS.items():
        seconds, ratios = series.spread(name), series.ratios(name, "by hand")
        verdict = Verdict(ratios.median, most) if most else None
        cells = (what, micros(seconds.median), *ratios.cells)
        made.add(*cells, verdict=verdict, seconds=seconds, ratio=ratios)
    yield made


def measured(database: dict[str, object], *, quick: bool) -> Series:
    series = Series(Effort(1, 2, 200) if quick else Effort(3, 15, 1000))
    for _ in series.generations():
        with Daemonkit("kept_empty").start(database) as process:
            for _ in series.rounds():
                for name in ROWS:
                    seconds = process.ask(
                        what=name, times=series.effort.units, age=300, health=False
                    )
                    series.note(name, seconds)
    return series
