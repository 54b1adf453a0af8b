#!/usr/bin/env python
"""Make price files for the shop's inbox. The same arguments make the same files.

python make_price_files.py inbox --files 3 --lines 2000
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random

SUPPLIERS = ["ACME", "NORD", "SOLIS", "YUAN"]


def main() -> None:
    options = parse_arguments()
    random = Random(options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, options.files + 1):
        drop(options.folder, number, list(price_lines(options.lines, random)))
    if options.bad:
        lines = list(price_lines(options.lines, random))
        lines[len(lines) // 2] = "ACME-00001,twelve,EUR"
        drop(options.folder, options.files + 1, lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make price files for the shop's inbox.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--files", type=int, default=3)
    parser.add_argument("--lines", type=int, default=2000, help="prices in each file")
    parser.add_argument("--bad", action="store_true", help="also make a file with a bad line")
    parser.add_argument("--seed", type=int, default=1, help="other prices for the same products")
    return parser.parse_args()


def price_lines(count: int, random: Random) -> Iterator[str]:
    """Yield the lines of a file: the same products in each, with new prices."""
    for index in range(count):
        number, supplier = divmod(index, len(SUPPLIERS))
        cents = random.randint(100, 99_999)
        yield f"{SUPPLIERS[supplier]}-{number + 1:05},{cents // 100}.{cents % 100:02},EUR"


def drop(folder: Path, number: int, lines: list[str]) -> None:
    """Write under another name first, so that the shop never sees an incomplete file."""
    path = folder / f"prices-{number:04}.csv"
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text("\n".join(["sku,amount,currency", *lines]) + "\n")
    unfinished.replace(path)
    print(path)


if __name__ == "__main__":
    main()
