"""Draining a queue in a table: ``ModelPoller``, and a SKIP LOCKED batch written by hand."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.frame import Effort, Series
from benchmarks.servers import Servers
from benchmarks.table import Table, Verdict, missing
from lab.contestants import Bare, Contestant, ContestantProcess, Daemonkit

LEAST = 0.9
"""What must be left of the rows per second, at batches of ``TARGETED``."""

BATCHES = (1, 10, 100, 500)
TARGETED = (100, 500)
WORKERS = (1, 2)
CONTESTANTS = (Bare("bare_drain", name="by hand"), Daemonkit("kept_drain"))
REFERENCE = "SELECT ... FOR UPDATE SKIP LOCKED, then one DELETE, in a loop written by hand"


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    for place, server in (("MariaDB", servers.mariadb), ("PostgreSQL", servers.postgresql)):
        title = f"Draining a queue on {place}, rows that need no work"
        if server is None:
            yield missing(title, "no such server, or no driver for it")
            continue
        yield table(title, measured(server.settings(), quick=quick))


def measured(database: dict[str, Any], *, quick: bool) -> Series:
    series = Series(Effort(1, 1, 100) if quick else Effort(2, 5, 10_000))
    for _ in series.generations():
        with ExitStack() as stack:
            teams = {
                each.label: [stack.enter_context(one) for one in team(each, database)]
                for each in CONTESTANTS
            }
            for names in series.rounds(teams):
                for batch, workers, name in itertools.product(BATCHES, WORKERS, names):
                    rows = series.effort.units if batch > 1 else series.effort.units // 10
                    seconds = time_of(teams[name][:workers], rows, batch)
                    series.note((batch, workers, name), seconds / rows)
    return series


def team(contestant: Contestant, database: dict[str, Any]) -> Iterator[ContestantProcess]:
    return (contestant.start(database) for _ in range(max(WORKERS)))


def time_of(workers: Sequence[ContestantProcess], rows: int, batch: int) -> float:
    """Seconds in which these workers drain a queue of so many rows."""
    workers[0].ask(rows=rows)
    started = time.perf_counter()
    for worker in workers:
        worker.tell({"batch": batch})
    drained = sum(worker.hear() for worker in workers)
    if drained != rows:
        raise RuntimeError(f"{drained} of {rows} rows were drained")
    return time.perf_counter() - started


def table(title: str, series: Series) -> Table:
    columns = ("batch, workers", "by hand", "daemonkit", "its time", "middle half")
    made = Table(title, columns, REFERENCE, str(series.effort))
    for batch, workers in itertools.product(BATCHES, WORKERS):
        hand, ours = (series.spread((batch, workers, each.label)) for each in CONTESTANTS)
        ratios = series.ratios((batch, workers, "daemonkit"), (batch, workers, "by hand"))
        verdict = Verdict(ratios.median, round(1 / LEAST, 2)) if batch in TARGETED else None
        rates = (f"{1 / each.median:,.0f}/s" for each in (hand, ours))
        cells = (f"{batch}, {workers}", *rates, *ratios.cells)
        made.add(*cells, verdict=verdict, by_hand=hand, daemonkit=ours)
    return made
