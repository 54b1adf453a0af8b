"""``python -m benchmarks [--quick] [--only NAME]``: ratios from one run, on private servers."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time

import django

from benchmarks import empty, forks, jobs, leader, lives, losses, rpc, ticks, workers
from benchmarks.contestants import Servers
from benchmarks.table import Table

SECTIONS = {
    "ticks": ticks,
    "empty": empty,
    "lives": lives,
    "losses": losses,
    "rpc": rpc,
    "forks": forks,
    "jobs": jobs,
    "leader": leader,
    "workers": workers,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rounds, no meaning")
    parser.add_argument("--only", choices=SECTIONS, help="one part")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and processes end with us
    print(header(quick=options.quick), flush=True)
    started = time.monotonic()
    tables = []
    with Servers() as servers:
        for name in [options.only] if options.only else SECTIONS:
            for table in SECTIONS[name].measure(servers, quick=options.quick):
                print(f"\n{table}", flush=True)
                tables.append(table)
    print(f"\n{summary(tables)}\n({time.monotonic() - started:.0f} seconds.)")


def header(*, quick: bool) -> str:
    lines = [
        f"Python {platform.python_version()}, Django {django.__version__}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. Rounds are interleaved; a ratio",
        "is the median of the ratios within each round, beside it the middle half of them.",
    ]
    if quick:
        lines.append("A quick run: it shows that everything runs, and its numbers mean nothing.")
    return "\n".join(lines)


def summary(tables: list[Table]) -> str:
    verdicts = [verdict for table in tables for verdict in table.verdicts]
    missed = [f"\n  missed: {what} ({verdict.value:.2f})"
              for what, verdict in verdicts if not verdict.is_met]  # fmt: skip
    return f"{len(verdicts) - len(missed)} of {len(verdicts)} targets met.{''.join(missed)}"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
