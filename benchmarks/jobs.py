"""Many jobs of one second in one process: how many run, how late, at what price."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.lives import megabytes
from benchmarks.servers import SQLITE, Servers
from benchmarks.table import Table, Verdict
from lab.contestants import APScheduler, Contestant, Daemonkit, DjangoAPScheduler, Heap

CONTESTANTS: tuple[Contestant, ...] = (
    Heap("bare_jobs", "--kind", "heap"),
    APScheduler("bare_jobs", "--kind", "memory"),
    DjangoAPScheduler("bare_jobs", "--kind", "stored"),
    Daemonkit("kept_jobs"),
    Daemonkit("kept_jobs", "--ledger", name="daemonkit with its ledger"),
    Daemonkit("kept_jobs", "--added", name="daemonkit, jobs of add_jobs()"),
)
RAW, STORE, OURS, LEDGER, ADDED = (each.label for each in CONTESTANTS[1:])


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    for spread in [False] if quick else [False, True]:
        for jobs in [10] if quick else [1, 10, 100, 1000]:
            yield measured(servers, jobs, spread=spread, seconds=0.6 if quick else 4.0)


def measured(servers: Servers, jobs: int, *, spread: bool, seconds: float) -> Table:
    how = "spread over the second" if spread else "due at once"
    title = f"Jobs of one second, {jobs} in one process, {how}"
    columns = ("contestant", "runs/s", "late p50", "late p99", "processor", "memory")
    table = Table(title, columns, RAW, f"{seconds:g} seconds")
    results: dict[str, dict[str, float]] = {}
    for contestant in CONTESTANTS:
        name, server = contestant.label, servers.mariadb
        if server is None and name in (STORE, LEDGER):
            continue
        database = server.settings() if server else dict(SQLITE)
        options = [f"--jobs={jobs}", f"--seconds={seconds}", *(["--spread"] if spread else [])]
        with contestant.start(database, *options) as process:
            results[name] = result = process.hear()
        late = [f"{result[at] * 1e3:.1f} ms" for at in ("p50", "p99")]
        cpu, memory = f"{result['cpu'] * 100:.1f} %", megabytes(result["memory"])
        table.add(name, f"{result['runs']:.0f}", *late, cpu, memory)
    if jobs == 1000 and not spread:
        judge(table, results, jobs)
    return table


def judge(table: Table, results: dict[str, dict[str, float]], jobs: int) -> None:
    ours, raw = results[OURS], results[RAW]

    def add(what: str, value: float, most: float, unit: str = "") -> None:
        table.add(what, f"{value:.2f}{unit}", "", "", "", "", verdict=Verdict(value, most, unit))

    add("daemonkit, runs that are missing", 100 * max(0.0, 1 - ours["runs"] / jobs), 2.0, " %")
    add("daemonkit, p50 against APScheduler's", ours["p50"] / raw["p50"], 1.0)
    add("daemonkit, p99 against APScheduler's", ours["p99"] / raw["p99"], 1.0)
    add("daemonkit, p99", ours["p99"] * 1e3, 20.0, " ms")
    add("jobs of add_jobs(), p99 against APScheduler's", results[ADDED]["p99"] / raw["p99"], 1.0)
    if STORE in results:
        stored = results[STORE]
        # No more than one run a second of each job is asked for: what a run costs says more.
        cost = (ours["cpu"] / ours["runs"]) / (stored["cpu"] / stored["runs"])
        table.add("daemonkit, processor time of a run, in its", f"{cost:.3f}", "", "", "", "")
        add("django-apscheduler's runs, in daemonkit's", stored["runs"] / ours["runs"], 0.05)
