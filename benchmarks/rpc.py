"""Thrift calls: a handler under fresh_connections, one without care, and one with it by hand.

``python -m benchmarks.rpc [--quick]`` measures these alone.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from thriftpy2.rpc import make_client

from benchmarks.calls import idl
from benchmarks.contestants import Servers, contest
from benchmarks.table import Spread, Table, Verdict, micros, missing

LEAST = 0.8
"""What must be left of the calls per second on a kept connection."""

COMMANDS = {
    "bare": ("bare_calls",),
    "by hand": ("bare_calls", "--by-hand"),
    "daemonkit": ("kept_calls",),
}
TARGETED = "one SELECT 1, CONN_MAX_AGE=None"
KINDS = {
    TARGETED: ("select_one", True),
    "nothing, CONN_MAX_AGE=None": ("nothing", True),
    "one SELECT 1, CONN_MAX_AGE=0": ("select_one", False),
}
TITLE = "A Thrift call, MariaDB over a socket: its time against a handler on a kept connection"

Times = dict[tuple[str, str], list[float]]
"""Seconds a call, round by round, by kind and contestant."""


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    if servers.mariadb is None:
        yield missing(TITLE, "no such server, or no driver for it")
        return
    times = rounds(servers.mariadb.settings(), quick=quick)
    made = Table(TITLE, ("a call of", "bare", "by hand", "middle half", "daemonkit", "middle half"))
    for kind in KINDS:
        bare = times[kind, "bare"]
        cells = [kind, micros(Spread.of(bare).median)]
        for name in ("by hand", "daemonkit"):
            ratios = Spread.of_ratios(times[kind, name], bare)
            cells += ratios.cells
        made.add(*cells, verdict=Verdict(ratios.median, 1 / LEAST) if kind == TARGETED else None)
    yield made
    yield per_second(times)


def per_second(times: Times) -> Table:
    """The same, as people ask for it."""
    made = Table("Thrift calls per second, one client", ("a call of", *COMMANDS))
    for kind in KINDS:
        made.add(kind, *(f"{1 / Spread.of(times[kind, name]).median:.0f}" for name in COMMANDS))
    return made


def rounds(database: dict[str, Any], *, quick: bool) -> Times:
    """Generations of processes, because each has its luck with memory; in each, rounds."""
    generations, count, calls = (1, 2, 10) if quick else (3, 30, 100)
    times: Times = defaultdict(list)
    for _ in range(generations):
        with contest(COMMANDS, database) as contestants, contextlib.ExitStack() as stack:
            clients = {
                name: stack.enter_context(client_of(contestant.hear()))
                for name, contestant in contestants.items()
            }
            for number in range(-1, count):
                names = list(COMMANDS)
                shift = number % len(names)
                for kind, (method, is_kept) in KINDS.items():
                    for name in names[shift:] + names[:shift]:
                        # Without care a connection is always kept, whatever CONN_MAX_AGE says.
                        clients[name].settle(is_kept)
                        clients[name].select_one()
                        seconds = time_of(getattr(clients[name], method), calls)
                        if number >= 0:  # the one before warms up
                            times[kind, name].append(seconds)
    return times


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
    from benchmarks.__main__ import header

    parser = argparse.ArgumentParser(prog="python -m benchmarks.rpc", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rounds, no meaning")
    options = parser.parse_args()
    print(header(quick=options.quick), flush=True)
    with Servers() as servers:
        for table in measure(servers, quick=options.quick):
            print(f"\n{table}", flush=True)


if __name__ == "__main__":
    main()
