"""Lives of idle processes: from their start to their first tick, and from SIGTERM to their end."""

from __future__ import annotations

import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.servers import SQLITE, Servers
from benchmarks.table import Spread, Table, Verdict, millis
from lab.contestants import Bare, Contestant, Daemonkit, contest

BARE, OURS = "bare, waits on an event", "daemonkit"
CONTESTANTS = (
    Bare("bare_wait", name=BARE),
    Bare("bare_wait", "--sleep", name="bare, time.sleep(1)"),
    Daemonkit("run_daemon", "kept_wait"),
)
REFERENCE = "a bare command that waits on an event"


@dataclass(frozen=True)
class Life:
    """One idle life, in seconds and bytes."""

    start: float
    rss: float
    uss: float
    left: float
    gone: float


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    database = servers.mariadb.settings() if servers.mariadb else dict(SQLITE)
    lives = rounds(database, range(1) if quick else range(-1, 16))
    yield starts(lives)
    yield stops(lives)
    yield idle(database, quick=quick)


def rounds(database: dict[str, object], numbers: range) -> dict[str, list[Life]]:
    lives: dict[str, list[Life]] = defaultdict(list)
    for number in numbers:
        shift = number % len(CONTESTANTS)
        for contestant in CONTESTANTS[shift:] + CONTESTANTS[:shift]:
            life = live(contestant, database)
            if number >= 0:  # a round before leaves the compiled files behind
                lives[contestant.label].append(life)
    return lives


def live(contestant: Contestant, database: dict[str, object]) -> Life:
    started = time.monotonic()
    with contestant.start(database) as running:
        ticked = running.hear()["ticked"]
        time.sleep(random.uniform(0.1, 1.1 if "--sleep" in contestant.command else 0.2))
        memory = psutil.Process(running.process.pid).memory_full_info()
        asked = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        left = running.hear()["left"]
        running.process.wait()
        gone = time.monotonic()
    return Life(ticked - started, memory.rss, memory.uss, left - asked, gone - asked)


def starts(lives: dict[str, list[Life]]) -> Table:
    table = Table(
        "Start, and memory when idle, against a bare command that waits on an event",
        ("what", "bare", "daemonkit", "ratio", "middle half"),
        REFERENCE,
    )
    for what, name, text in (
        ("start to first tick", "start", millis),
        ("memory, resident (RSS)", "rss", megabytes),
        ("memory, its own (USS)", "uss", megabytes),
    ):
        bare, ours = (
            Spread.of([getattr(life, name) for life in lives[who]]) for who in (BARE, OURS)
        )
        ratios = Spread.of_ratios(ours.values, bare.values)
        cells = (what, text(bare.median), text(ours.median), *ratios.cells)
        verdict = Verdict(ratios.median, 1.05)
        table.add(*cells, verdict=verdict, bare=bare, daemonkit=ours, ratio=ratios)
    return table


def stops(lives: dict[str, list[Life]]) -> Table:
    table = Table(
        "SIGTERM when idle, against a bare command that waits on an event",
        ("contestant", "wait left", "longest", "process gone", "ratio", "middle half"),
        REFERENCE,
    )
    bare = [life.gone for life in lives[BARE]]
    for name in lives:
        left = [life.left for life in lives[name]]
        gone = [life.gone for life in lives[name]]
        ratios = Spread.of_ratios(gone, bare)
        times = f"{Spread.of(left).median * 1e3:.1f} ms", f"{max(left) * 1e3:.1f} ms"
        ours = name == OURS
        table.add(
            name,
            *times,
            millis(Spread.of(gone).median),
            *ratios.cells,
            verdict=Verdict(ratios.median, 1.0) if ours else None,
            gone=Spread.of(gone),
            left=Spread.of(left),
            ratio=ratios,
        )
        if ours:
            verdict = Verdict(max(left) * 1e3, 50, " ms")
            table.add("daemonkit, its longest wait", *times, "", "", "", verdict=verdict)
    return table


def idle(database: dict[str, object], *, quick: bool) -> Table:
    """Processor time of two processes that run at the same time, window by window."""
    generations, windows, seconds = (1, 1, 1.0) if quick else (3, 3, 3.0)
    used: dict[str, list[float]] = {BARE: [], OURS: []}
    two = [each for each in CONTESTANTS if each.label in used]
    for _ in range(generations):
        with contest(two, database) as contestants:
            for contestant in contestants.values():
                contestant.hear()
            time.sleep(0.5)
            for _ in range(windows):
                before = {name: cpu(contestants[name].process.pid) for name in used}
                time.sleep(seconds)
                for name, times in used.items():
                    spent = cpu(contestants[name].process.pid) - before[name]
                    times.append(spent / seconds)
    table = Table(
        "Processor time of a loop that ticks each second and does nothing",
        ("what", "bare", "daemonkit", "ratio", "middle half"),
        REFERENCE,
    )
    ratios = Spread.of_ratios(used[OURS], used[BARE])
    medians = [f"{Spread.of(used[name]).median * 100:.3f} %" for name in used]
    cells = ("of one core", *medians, *ratios.cells)
    table.add(*cells, verdict=Verdict(ratios.median, 1.05), ratio=ratios)
    return table


def cpu(pid: int) -> float:
    """Seconds on a processor, of all threads, to the nanosecond: times(2) knows hundredths."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def megabytes(size: float) -> str:
    return f"{size / 2**20:.1f} MB"
