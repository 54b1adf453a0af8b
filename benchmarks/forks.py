"""The price of the fork guard: for each connection that is opened, and for each fork."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from benchmarks.contestants import Servers, contest
from benchmarks.table import Spread, Table, Verdict, micros, missing

OPEN = (0, 1, 10, 50)
COMMANDS = {"bare": ("bare_forks",), "kept": ("kept_forks",)}


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    if not (server := servers.mariadb):
        yield missing("Forks", "MariaDB or mysqlclient")
        return
    generations, rounds, forks, opened = (1, 2, 3, 10) if quick else (4, 25, 20, 50)
    times: dict[object, list[float]] = defaultdict(list)
    for _ in range(generations):
        with contest(COMMANDS, server.settings()) as contestants:
            for number in range(-1, rounds):
                found: dict[object, float] = {
                    (name, held): contestant.ask(what="fork", times=forks, held=held)
                    for held in OPEN
                    for name, contestant in contestants.items()
                }
                for what in ("unguarded", "guarded", "guard"):
                    found[what] = contestants["kept"].ask(what=what, times=opened, held=0)
                if number >= 0:
                    for key, seconds in found.items():
                        times[key].append(seconds)
    yield opening(times)
    yield forking(times)


def opening(times: dict[object, list[float]]) -> Table:
    made = Table(
        "Opening and closing a connection to MariaDB over a socket",
        ("what", "median", "ratio", "middle half"),
    )
    for what, key, most in (
        ("daemonkit without its fork guard", "unguarded", None),
        ("with it", "guarded", 1.05),
        ("the guard's part alone", "guard", None),
    ):
        ratios = Spread.of_ratios(times[key], times["unguarded"])
        verdict = Verdict(ratios.median, most) if most else None
        made.add(what, micros(Spread.of(times[key]).median), *ratios.cells, verdict=verdict)
    return made


def forking(times: dict[object, list[float]]) -> Table:
    made = Table(
        "A fork, until the child has ended by os._exit, against one without daemonkit",
        ("connections open", "bare", "guarded", "ratio", "middle half"),
    )
    for held in OPEN:
        bare, kept = times["bare", held], times["kept", held]
        medians = [micros(Spread.of(seconds).median) for seconds in (bare, kept)]
        made.add(str(held), *medians, *Spread.of_ratios(kept, bare).cells)
    return made
