"""Run the table of packages and faults, and print it.

``python -m tests.third_party [NAME...] [--write]``
"""

from __future__ import annotations

import argparse

from lab.servers import MariaDB, PostgreSQL
from tests.third_party import page
from tests.third_party.packages import PACKAGES
from tests.third_party.table import why_missing
from tests.third_party.worker import FAULTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.third_party", description=__doc__)
    parser.add_argument("names", nargs="*", help="only packages with one of these words")
    parser.add_argument("--write", action="store_true", help="write the table into the docs")
    options = parser.parse_args()
    chosen = [package for package in PACKAGES if is_chosen(package.name, options.names)]
    if missing := next(filter(None, map(why_missing, chosen)), None):
        parser.error(missing)
    servers = {"mariadb": MariaDB(), "postgres": PostgreSQL()}
    rows = []
    for package in chosen:
        server = servers["mariadb" if package.server == "mariadb" else "postgres"]
        server.start()
        rows.append(page.Row.run(package, server))
        print_row(rows[-1])
    if options.write:
        page.write(rows)


def is_chosen(name: str, words: list[str]) -> bool:
    return not words or any(word in name for word in words)


def print_row(row: page.Row) -> None:
    print(row.package.name)
    for fault in FAULTS:
        print(f"  {fault:24} {row.alone[fault]:30} {row.beside[fault]}", flush=True)


if __name__ == "__main__":
    main()
