"""Medians, their spread, and readable tables with a verdict in each row."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Many measurements of one thing: the median, and where the middle half of them lies."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(tuple(values))

    @classmethod
    def of_ratios(cls, values: Sequence[float], others: Sequence[float]) -> Spread:
        """Of the ratios within each round: what slows a whole round down cancels out."""
        return cls(tuple(a / b for a, b in zip(values, others, strict=True)))

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def as_json(self) -> dict[str, Any]:
        return {"median": self.median, "quartiles": self.quartiles, "values": self.values}

    @property
    def cells(self) -> tuple[str, str]:
        """As a ratio and its spread."""
        low, high = self.quartiles
        return f"{self.median:.2f}", f"{low:.2f} .. {high:.2f}"


@dataclass(frozen=True)
class Verdict:
    """A target beside a measurement."""

    value: float
    most: float
    unit: str = ""

    @property
    def is_met(self) -> bool:
        return round(self.value, 2) <= self.most

    @property
    def cells(self) -> tuple[str, str]:
        return f"<= {self.most:g}{self.unit}", "met" if self.is_met else "MISSED"


@dataclass
class Table:
    """A title, the names of its columns (the last two, target and verdict, are added) and rows.

    ``reference`` is what ratios are ratios to, and ``settings`` says how it was measured.
    """

    title: str
    columns: tuple[str, ...]
    reference: str = ""
    settings: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    verdicts: list[tuple[str, Verdict]] = field(default_factory=list)
    measured: list[dict[str, Spread]] = field(default_factory=list)
    """For each row what its cells are drawn from, by name."""

    def add(self, *cells: str, verdict: Verdict | None = None, **measured: Spread) -> None:
        self.rows.append((*cells, *(verdict.cells if verdict else ("", ""))))
        self.measured.append(measured)
        if verdict:
            self.verdicts.append((", ".join((self.title, cells[0])), verdict))

    def as_json(self) -> dict[str, Any]:
        head = (*self.columns, "target", "verdict")
        return {
            "title": self.title,
            "reference": self.reference,
            "settings": self.settings,
            "rows": [
                {
                    **dict(zip(head, cells, strict=True)),
                    "measured": {name: spread.as_json() for name, spread in measured.items()},
                }
                for cells, measured in zip(self.rows, self.measured, strict=True)
            ],
        }

    def __str__(self) -> str:
        head = (*self.columns, "target", "")
        widths = [max(map(len, column)) for column in zip(head, *self.rows, strict=True)]
        lines = [self.title, *(self._line(cells, widths) for cells in (head, *self.rows))]
        return "\n".join(lines)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return ("  " + "  ".join(padded)).rstrip()


def missing(title: str, what: str) -> Table:
    """A table of what cannot be measured here."""
    table = Table(title, ("",))
    table.add(f"skipped: {what}")
    return table


def micros(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


def millis(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"
