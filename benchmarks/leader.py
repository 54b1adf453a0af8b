"""One leader of many: how long until another leads, and what a lease costs."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

from benchmarks.frame import Effort, Series
from benchmarks.servers import Servers
from benchmarks.table import Spread, Table, Verdict, micros, missing
from lab.contestants import Daemonkit
from lab.servers import Server

ENDS = {"clean stop (SIGTERM)": signal.SIGTERM, "crash (SIGKILL)": signal.SIGKILL}


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    for name, server in (("MariaDB", servers.mariadb), ("PostgreSQL", servers.postgresql)):
        if server is None:
            yield missing(f"A leader on {name}", f"{name} or its driver")
            continue
        yield prices(name, server, quick=quick)
        yield takeovers(name, server, quick=quick)


def prices(name: str, server: Server, *, quick: bool) -> Table:
    series = Series(Effort(1, 1, 5) if quick else Effort(1, 15, 200))
    with Daemonkit("kept_lease").start(server.settings()) as process:
        for _ in series.rounds():
            for what in ("update", "renewal", "look", "plain_write", "guarded_write"):
                series.note(what, process.ask(what=what, times=series.effort.units))
    table = Table(
        f"What a lease costs on {name}, over a socket",
        ("what", "median", "ratio", "middle half"),
        "a bare UPDATE on Django's connection, and atomic() around one",
        str(series.effort),
    )
    for what, key, base in (
        ("a bare UPDATE on Django's connection", "update", "update"),
        ("a renewal, each 2 s", "renewal", "update"),
        ("a look of a standby, each 0.5 s", "look", "update"),
        ("atomic(): one UPDATE", "plain_write", "plain_write"),
        ("self.guarded(): one UPDATE", "guarded_write", "plain_write"),
    ):
        seconds, ratios = series.spread(key), series.ratios(key, base)
        table.add(what, micros(seconds.median), *ratios.cells, seconds=seconds, ratio=ratios)
    return table


def takeovers(name: str, server: Server, *, quick: bool) -> Table:
    table = Table(
        f"From the end of a leader on {name} to the first tick of the next",
        ("lease and end", "median", "longest"),
    )
    leases = ((1.5, 1, 1),) if quick else ((15.0, 5, 3), (3.0, 8, 8))
    for lease, stops, crashes in leases:
        for what, rounds, most in (
            ("clean stop (SIGTERM)", stops, 1.0),
            ("crash (SIGKILL)", crashes, lease + 1),
        ):
            spread = Spread.of([takeover(server, lease, ENDS[what]) for _ in range(rounds)])
            longest = max(spread.values)
            table.add(
                f"{lease:g} s, {what}",
                f"{spread.median:.2f} s",
                f"{longest:.2f} s",
                verdict=Verdict(longest, most, " s"),
                seconds=spread,
            )
    return table


def takeover(server: Server, lease: float, signum: int) -> float:
    """Seconds."""
    candidate = Daemonkit("run_daemon", "kept_lead", "--lease", f"{lease:g}s")
    settings = server.settings()
    with candidate.start(settings) as leader:
        leader.hear()
        with candidate.start(settings) as standby:
            standby.hear()  # it stands by
            time.sleep(random.uniform(0, 2))  # wherever the renewals stand
            ended = time.monotonic()
            leader.process.send_signal(signum)
            ticked: float = standby.hear()["ticked"]
            standby.process.terminate()
            standby.process.wait()
    return ticked - ended
