"""``python -m benchmarks [--quick] [--only PART]``: ratios from one run, on private servers."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from benchmarks import drain, empty, forks, jobs, leader, lives, losses, memory, rpc, ticks, workers
from benchmarks.report import header, save
from benchmarks.servers import Servers
from benchmarks.table import Table

SECTIONS = {
    "ticks": ticks,
    "drain": drain,
    "empty": empty,
    "lives": lives,
    "losses": losses,
    "memory": memory,
    "rpc": rpc,
    "forks": forks,
    "jobs": jobs,
    "leader": leader,
    "workers": workers,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rounds, no meaning")
    parser.add_argument("--only", choices=SECTIONS, metavar="PART", help=", ".join(SECTIONS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and processes end with us
    print(header(quick=options.quick), flush=True)
    started = time.monotonic()
    tables = []
    with Servers() as servers:
        for name in [options.only] if options.only else SECTIONS:
            found = []
            for table in SECTIONS[name].measure(servers, quick=options.quick):
                print(f"\n{table}", flush=True)
                found.append(table)
            tables += found
            path = save(name, found, servers, quick=options.quick)
            print(f"\n({path.relative_to(path.parent.parent)})", flush=True)
        said = ", ".join(servers.versions())
    seconds = time.monotonic() - started
    print(f"\n{summary(tables)}\n{said + '; ' if said else ''}{seconds:.0f} seconds.")


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
