"""The frame of every part: how much is measured, in which order, and what is kept of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks.table import Spread


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Generations of processes, because each process has its luck with memory; in each generation
    rounds, in which every contestant has its turn; in each turn a number of units of work.
    """

    generations: int
    rounds: int
    units: int = 1

    def __str__(self) -> str:
        return (
            f"{self.generations} generations of processes, {self.rounds} rounds each, "
            f"{self.units} units of work in a turn"
        )


class Series:
    """The measurements of one part: seconds, or other numbers, round by round, by any key."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._values: dict[Hashable, list[float]] = defaultdict(list)
        self._is_warm = False

    def generations(self) -> Iterator[int]:
        """Start new processes for each."""
        yield from range(self.effort.generations)

    def rounds(self, names: Iterable[str] = ("",)) -> Iterator[list[str]]:
        """The contestants of each round, in another order each time: nobody is always the first.

        A first round warms up: nothing is kept of it.
        """
        order = list(names)
        for number in range(-1, self.effort.rounds):
            self._is_warm = number >= 0
            shift = number % len(order)
            yield order[shift:] + order[:shift]

    def note(self, key: Hashable, value: float) -> None:
        if self._is_warm:
            self._values[key].append(value)

    def spread(self, key: Hashable) -> Spread:
        return Spread.of(self._values[key])

    def ratios(self, key: Hashable, reference: Hashable) -> Spread:
        """Of the ratios within each round."""
        return Spread.of_ratios(self._values[key], self._values[reference])
