"""What the soaks have in common: a seed, a size, and an answer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar


@dataclass(frozen=True)
class Size:
    """How long a soak lasts: a number of steps, or of seconds."""

    steps: int
    seconds: float | None = None

    def numbers(self) -> Iterator[int]:
        until = None if self.seconds is None else time.monotonic() + self.seconds
        for number in range(self.steps):
            if until is not None and time.monotonic() > until:
                return
            yield number


@dataclass
class Report:
    """What a soak saw: counts of what happened, and what was wrong."""

    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    MOST_SHOWN: ClassVar[int] = 20

    def expect(self, is_right: bool, what: str) -> None:
        """Note ``what`` as wrong unless it is right."""
        if not is_right:
            self.wrong.append(what)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.seen.items()))
        lines = [counts, *self.wrong[: self.MOST_SHOWN]]
        if len(self.wrong) > self.MOST_SHOWN:
            lines.append(f"and {len(self.wrong) - self.MOST_SHOWN} more")
        return "\n".join(lines)


class Soak(ABC):
    """A kind of work that is done very often, while random faults happen.

    Each variant runs in a process of its own. To add a soak, write a subclass in a module of this
    package and name it in ``__main__.SOAKS``.
    """

    name: ClassVar[str]
    variants: ClassVar[tuple[str, ...]]
    steps: ClassVar[int]
    """How many steps a variant takes in ``make soak``."""

    @abstractmethod
    def run(self, variant: str, random: Random, size: Size) -> Report:
        """Do the work. What depends on chance asks ``random`` alone."""
