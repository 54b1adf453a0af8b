"""Thrift calls: a handler under fresh_connections, one without care, and one with it by hand.

``python -m benchmarks.rpc [--quick]`` measures these alone.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any

from thriftpy2.rpc import make_client

from benchmarks.frame import Effort, Series
from benchmarks.servers import Servers
from benchmarks.table import Table, Verdict, micros, missing
from lab.contestants import Bare, ByHand, Daemonkit, contest
from lab.sites.calls import idl

LEAST = 0.8
"""What must be left of the calls per second on a kept connection."""

CONTESTANTS = (Bare("bare_calls"), ByHand("bare_calls", "--by-hand"), Daemonkit("kept_calls"))
TARGETED = "one SELECT 1, CONN_MAX_AGE=None"
KINDS = {
    TARGETED: ("select_one", True),
    "nothing, CONN_MAX_AGE=None": ("nothing", True),
    "one SELECT 1, CONN_MAX_AGE=0": ("select_one", False),
}
TITLE = "A Thrift call, MariaDB over a socket: its time against a handler on a kept connection"


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    if servers.mariadb is None:
        yield missing(TITLE, "no such server, or no driver for it")
        return
    series = measured(servers.mariadb.settings(), quick=quick)
    columns = ("a call of", "bare", "by hand", "middle half", "daemonkit", "middle half")
    reference = "a handler without care, on a connection that is kept"
    made = Table(TITLE, columns, reference, str(series.effort))
    for kind in KINDS:
        bare = series.spread((kind, "bare"))
        hand, ours = (series.ratios((kind, n), (kind, "bare")) for n in ("by hand", "daemonkit"))
        verdict = Verdict(ours.median, 1 / LEAST) if kind == TARGETED else None
        cells = (kind, micros(bare.median), *hand.cells, *ours.cells)
        made.add(*cells, verdict=verdict, bare=bare, by_hand=hand, daemonkit=ours)
    yield made
    yield per_second(series)


def per_second(series: Series) -> Table:
    """The same, as people ask for it."""
    names = [each.label for each in CONTESTANTS]
    made = Table("Thrift calls per second, one client", ("a call of", *names))
    for kind in KINDS:
        made.add(kind, *(f"{1 / series.spread((kind, name)).median:.0f}" for name in names))
    return made


def measured(database: dict[str, Any], *, quick: bool) -> Series:
    series = Series(Effort(1, 2, 10) if quick else Effort(3, 30, 100))
    for _ in series.generations():
        with contest(CONTESTANTS, database) as processes, contextlib.ExitStack() as stack:
            clients = {
                name: stack.enter_context(client_of(process.hear()))
                for name, process in processes.items()
            }
            for names in series.rounds(clients):
                for (kind, (method, is_kept)), name in itertools.product(KINDS.items(), names):
                    # Without care a connection is always kept, whatever CONN_MAX_AGE says.
                    clients[name].settle(is_kept)
                    clients[name].select_one()
                    call = getattr(clients[name], method)
                    series.note((kind, name), time_of(call, series.effort.units))
    return series


@contextlib.contextmanager
def client_of(port: int) -> Iterator[Any]:
    with contextlib.closing(make_client(idl.Calls, "127.0.0.1", port, timeout=60_000)) as client:
        yield client


def time_of(call: Any, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


def main() -> None:
    from benchmarks.report import header

    parser = argparse.ArgumentParser(prog="python -m benchmarks.rpc", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rounds, no meaning")
    options = parser.parse_args()
    print(header(quick=options.quick), flush=True)
    with Servers() as servers:
        for table in measure(servers, quick=options.quick):
            print(f"\n{table}", flush=True)


if __name__ == "__main__":
    main()
