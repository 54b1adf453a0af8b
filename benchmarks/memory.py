"""Very many ticks, of which one in ten fails: memory, objects and descriptors stay as they are."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.servers import SQLITE, Servers
from benchmarks.table import Table, Verdict, micros
from lab.contestants import Daemonkit

TICKS = 1_000_000
MEGABYTES_MORE = 1.0
"""How much more the process may hold at the end than at a tenth."""


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    times = TICKS // 100 if quick else TICKS
    with Daemonkit("kept_memory").start(dict(SQLITE)) as process:
        answer = process.ask(times=times)
    made = Table(
        f"{times:,} ticks; one in ten fails, the others return a megabyte",
        ("after", "resident", "more than at a tenth", "objects", "descriptors"),
        settings=f"{micros(answer['seconds'] / times)} a tick",
    )
    first = answer["found"][0]
    for share, found in zip(("a tenth", "half", "all"), answer["found"], strict=True):
        more = (found["kilobytes"] - first["kilobytes"]) / 1024
        made.add(
            share,
            f"{found['kilobytes'] / 1024:.1f} MB",
            f"{more:+.1f} MB",
            str(found["objects"]),
            str(found["descriptors"]),
            verdict=Verdict(more, MEGABYTES_MORE, " MB") if share != "a tenth" else None,
        )
    yield made
