"""A claim: a process's right to something that has a name, and by which rules it is kept and lost.

The rules are those of Kubernetes' client-go (``leaderelection.go``). A row names the holder, which
renews it and so changes its counter. The others look on, each by a clock of its own, and may take
it when they have seen no change for as long as the row says. The holder stops trusting itself
earlier than that, counted from before it asked for its last renewal. So no two clocks are ever
compared; they need only run equally fast. Each change is one statement that names the row as it
was seen, so that of two who try one fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from daemonkit.leading.rows import OwnedRow, Row
from daemonkit.leading.terms import Terms
from daemonkit.process.identity import parse_identity


def boot_clock() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Term(NamedTuple):
    """A time of holding a claim. ``until`` is when its holder stops trusting itself, on the claim's
    clock."""

    row: Row
    until: float

    @property
    def epoch(self) -> int:
        return self.row.epoch


class ClaimLost(Exception):
    """The row says that somebody else holds the claim, or nobody."""


class Claim:
    """A claim of one process: what it has seen of the row, and whether it holds it.

    ``holder`` is a name that nobody else has, not even another claim of this process. It has no
    thread and waits for nothing: whoever has it calls ``renew()`` every ``terms.retry`` seconds.
    Its methods raise what the database raises; what then became of a statement is unknown, and the
    next one finds out.
    """

    noun = "claim"
    """What an error calls it."""

    def __init__(
        self,
        row: OwnedRow,
        terms: Terms,
        holder: str,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self.terms, self.holder, self.clock = terms, holder, clock
        self.term: Term | None = None
        self.seen: Row | None = None
        """The row as it was when this process last looked."""
        self._row = row
        self._seen_at = 0.0
        self._doubted = False

    @property
    def left(self) -> float:
        """Seconds for which it may be relied on; none or less if it is not held."""
        term = self.term
        return term.until - self.clock() if term else 0.0

    @property
    def epoch(self) -> int | None:
        """A number that grows by one each time that somebody takes the claim; None if it is not
        held. ``guarded_by()`` refuses a transaction of an older one."""
        return self.term.epoch if self.term else None

    @property
    def other_holder(self) -> str:
        """Which other process holds it, as HOST:PID, as far as was seen; "" if none does."""
        if self.seen is None or self.seen.holder == self.holder:
            return ""
        return _without_token(self.seen.holder)

    def take(self) -> bool:
        """Look at the row, and take it if it is free: given back, or unchanged for as long as it
        says. True if this process holds it now."""
        self.look()
        return self.is_free and self.take_as_seen()

    def look(self) -> None:
        """Look at the row, and note when it has changed."""
        row = self._row.read()
        if row != self.seen:
            self.seen = row
            self._seen_at = self.clock()  # after the answer: never older than it is

    @property
    def is_free(self) -> bool:
        """Whether the row, as it was seen, may be taken by now."""
        # Its own name is that of a term which it lost, or never knew that it had won.
        row = self.seen
        if row is None or row.holder in ("", self.holder):
            return True
        return self.clock() >= self.free_at

    @property
    def free_at(self) -> float:
        """When a row that does not change any more may be taken, on the claim's clock."""
        return self._seen_at + self.seen.seconds if self.seen else self._seen_at

    def take_as_seen(self) -> bool:
        """Put itself into the row; False if the row is no more as it was seen."""
        old = self.seen
        epoch = old.epoch + 1 if old else self._row.first_epoch()
        renewals = old.renewals + 1 if old else 1
        return self._swap(old, Row(self.holder, epoch, renewals, self.terms.duration))

    def _swap(self, old: Row | None, new: Row) -> bool:
        asked = self.clock()  # before: a renewal is never taken for newer than it is
        if not self._row.swap(old, new):
            return False
        self.seen, self._seen_at = new, self.clock()
        self.term = Term(new, asked + self.terms.renew_deadline)
        self._doubted = False
        return True

    def renew(self) -> None:
        """Renew the claim. Raises ``ClaimLost`` if somebody else has it."""
        assert self.term is not None
        row: Row | None = self.term.row
        if self._doubted:  # an attempt of which nobody knows whether it took effect
            row = self._row.read()
        if row is None or row[:2] != self.term.row[:2]:
            raise ClaimLost(self._by_whom(row))
        self._doubted = True
        if not self._swap(row, row._replace(renewals=row.renewals + 1)):
            row = self._row.read()
            if row is None or row[:2] != self.term.row[:2]:
                raise ClaimLost(self._by_whom(row))

    def _by_whom(self, row: Row | None) -> str:
        if row is None:
            return "its row is gone"
        if not row.holder:
            return f"the {self.noun} was freed"
        return f"{_without_token(row.holder)} took the {self.noun}"

    def forget(self) -> None:
        """Hold it no more, without a word to the database: it runs out."""
        self.term = None

    def give_back(self) -> None:
        """Give it back, for another to take it at once."""
        term, self.term = self.term, None
        if term is not None:
            row = self._row.read() if self._doubted else term.row
            if row is not None and row[:2] == term.row[:2]:
                self._row.swap(row, row._replace(holder="", renewals=row.renewals + 1))


def _without_token(holder: str) -> str:
    return parse_identity(holder).without_token
