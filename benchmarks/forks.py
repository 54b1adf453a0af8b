"""The price of the fork guard: for each connection that is opened, and for each fork."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from benchmarks.frame import Effort, Series
from benchmarks.servers import Servers
from benchmarks.table import Table, Verdict, micros, missing
from lab.contestants import Bare, Daemonkit, contest

OPEN = (0, 1, 10, 50)
CONTESTANTS = (Bare("bare_forks"), Daemonkit("kept_forks"))


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    if not (server := servers.mariadb):
        yield missing("Forks", "MariaDB or mysqlclient")
        return
    series = Series(Effort(1, 2, 3) if quick else Effort(4, 25, 20))
    opened = 10 if quick else 50
    for _ in series.generations():
        with contest(CONTESTANTS, server.settings()) as processes:
            for names in series.rounds(processes):
                for held, name in itertools.product(OPEN, names):
                    seconds = processes[name].ask(what="fork", times=series.effort.units, held=held)
                    series.note((name, held), seconds)
                for what in ("unguarded", "guarded", "guard"):
                    seconds = processes["daemonkit"].ask(what=what, times=opened, held=0)
                    series.note(what, seconds)
    yield opening(series)
    yield forking(series)


def opening(series: Series) -> Table:
    made = Table(
        "Opening and closing a connection to MariaDB over a socket",
        ("what", "median", "ratio", "middle half"),
        "daemonkit without its fork guard",
        str(series.effort),
    )
    for what, key, most in (
        ("daemonkit without its fork guard", "unguarded", None),
        ("with it", "guarded", 1.05),
        ("the guard's part alone", "guard", None),
    ):
        seconds, ratios = series.spread(key), series.ratios(key, "unguarded")
        verdict = Verdict(ratios.median, most) if most else None
        cells = (what, micros(seconds.median), *ratios.cells)
        made.add(*cells, verdict=verdict, seconds=seconds, ratio=ratios)
    return made


def forking(series: Series) -> Table:
    made = Table(
        "A fork, until the child has ended by os._exit, against one without daemonkit",
        ("connections open", "bare", "guarded", "ratio", "middle half"),
        "a fork of a process without daemonkit",
        str(series.effort),
    )
    for held in OPEN:
        bare, kept = series.spread(("bare", held)), series.spread(("daemonkit", held))
        ratios = series.ratios(("daemonkit", held), ("bare", held))
        cells = (str(held), micros(bare.median), micros(kept.median), *ratios.cells)
        made.add(*cells, bare=bare, daemonkit=kept, ratio=ratios)
    return made
