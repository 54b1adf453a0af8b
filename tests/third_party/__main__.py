"""Print the table of packages and faults: ``python -m tests.third_party [NAME...]``."""

from __future__ import annotations

import argparse
import time

from lab.servers import MariaDB, PostgreSQL
from tests.third_party.packages import PACKAGES
from tests.third_party.table import cells, versions_of, why_missing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.third_party", description=__doc__)
    parser.add_argument("names", nargs="*", help="only packages with one of these words")
    names = parser.parse_args().names
    mariadb, postgres = MariaDB(), PostgreSQL()
    mariadb.start(), postgres.start()
    for package in PACKAGES:
        if names and not any(name in package.name for name in names):
            continue
        if reason := why_missing(package):
            print(package.name, reason)
            continue
        server = mariadb if package.server == "mariadb" else postgres
        server.clear()
        for with_daemonkit in (False, True):
            began = time.monotonic()
            found = cells(package, server, with_daemonkit=with_daemonkit)
            print(f"{package.name} ({versions_of(package)}) daemonkit={with_daemonkit} {time.monotonic()-began:.1f}s", flush=True)
            for fault, cell in found.items():
                print(f"    {fault}: {cell}", flush=True)


if __name__ == "__main__":
    main()
