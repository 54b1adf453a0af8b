"""The table as docs/third-party.md has it, and as a run makes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.processes import ROOT
from lab.servers import Server
from tests.third_party.packages import Package
from tests.third_party.table import NOT_OFFERED, WORKS, cells, versions_of
from tests.third_party.worker import FAULTS

PAGE = ROOT / "docs" / "third-party.md"
MARKS = {WORKS: "✓", NOT_OFFERED: "-"}


@dataclass(frozen=True)
class Row:
    """What came of each fault beside one package, with Django alone and with daemonkit."""

    package: Package
    alone: dict[str, str]
    beside: dict[str, str]

    @classmethod
    def run(cls, package: Package, server: Server) -> Row:
        alone = cells(package, server, with_daemonkit=False)
        return cls(package, alone, cells(package, server, with_daemonkit=True))

    def broken(self) -> dict[str, str]:
        """Return the faults that do not work with daemonkit though they could, and why."""
        return {
            fault: cell
            for fault, cell in self.beside.items()
            if cell != WORKS and self.alone[fault] in (WORKS, NOT_OFFERED)
        }

    def line(self) -> str:
        marks = [f"{mark(self.alone[fault])} {mark(self.beside[fault])}" for fault in FAULTS]
        return f"| {' | '.join([self.package.name, versions_of(self.package), *marks])} |"

    def remarks(self) -> Iterator[str]:
        """Yield a sentence for each ✗."""
        for fault in FAULTS:
            for whose, cell in (
                ("Django alone", self.alone[fault]),
                ("daemonkit", self.beside[fault]),
            ):
                if mark(cell) == "✗":
                    yield f"- {self.package.name}, {fault}, {whose}: {cell}."


def mark(cell: str) -> str:
    return MARKS.get(cell, "✗")


def head() -> str:
    columns = ["package", "versions", *FAULTS]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def write(rows: list[Row], page: Path = PAGE) -> None:
    """Put the table in its place on the page."""
    table = "\n".join([head(), *(row.line() for row in rows)])
    remarks = "\n".join(remark for row in rows for remark in row.remarks())
    text = f"{table}\n\n{remarks}\n" if remarks else f"{table}\n"
    before, begin, _, end, after = re.split(
        r"(<!-- table -->\n|<!-- /table -->\n)", page.read_text()
    )
    page.write_text(f"{before}{begin}{text}{end}{after}")


def lines(page: Path = PAGE) -> dict[str, str]:
    """Return the table's lines as the page has them, by package."""
    found = re.findall(r"^\| ([^|]+) \|.*$", page.read_text(), re.MULTILINE)
    whole = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return dict(zip(found, whole, strict=True))
