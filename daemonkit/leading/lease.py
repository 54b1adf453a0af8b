"""The lease: by which rules the right to lead is gained, kept and lost.

The rules are those of Kubernetes' client-go (``leaderelection.go``). A row names the holder. Who
leads renews it, which changes its counter; the others look on, each by a clock of its own, and may
take it when they have seen no change for as long as the row says. The holder stops trusting itself
earlier than that, counted from before it asked for its last renewal. So no two clocks are ever
compared; they need only run equally fast. Each change is one statement that names the row as it
was seen, so that of two who try one fails.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from django.db import IntegrityError

from daemonkit.leading.fencing import SHORTEST_LEASE
from daemonkit.process.identity import parse_identity

JITTER = 1.2
"""How much longer than the pause between two renewals the renew deadline must be, as in client-go.
"""

LOOK_INTERVAL = 0.5
"""The longest time between two looks of a standby, in seconds: so that a lease which is given back
is taken within a second."""


def boot_clock() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Terms:
    """The times of a lease, in seconds.

    ``duration``
        For how long after its last renewal nobody else may take it.
    ``renew_deadline``
        After how long without a renewal its holder stops. The difference between the two is for
        cutting what runs, and for clocks that do not run equally fast.
    ``retry``
        From one renewal to the next.
    """

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0

    @classmethod
    def of(
        cls, duration: float, renew_deadline: float | None = None, retry: float | None = None
    ) -> Terms:
        """With what is not said in client-go's proportions: 15 to 10 to 2."""
        deadline = duration * 10 / 15 if renew_deadline is None else renew_deadline
        return cls(duration, deadline, deadline / 5 if retry is None else retry)

    def complaint(self) -> str:
        """What is wrong with them, and the mend, in one sentence; "" if nothing is."""
        if self.duration < SHORTEST_LEASE:
            return f"a lease of {self.duration:g} s is too short: {SHORTEST_LEASE:g} s is the least"
        if self.duration <= self.renew_deadline:
            return (
                f"a lease of {self.duration:g} s is not longer than its renew_deadline of "
                f"{self.renew_deadline:g} s, so that two could lead at once: make it longer"
            )
        if self.renew_deadline <= JITTER * self.retry:
            return (
                f"a renew_deadline of {self.renew_deadline:g} s leaves no time for a second try "
                f"when the lease is renewed every {self.retry:g} s: it must be over "
                f"{JITTER * self.retry:g} s"
            )
        return ""

    @property
    def patience(self) -> float:
        """Seconds for one statement: so that a second one is possible, on a new connection."""
        return self.renew_deadline / 3


class Row(NamedTuple):
    """The lease as it stands in the database. ``holder`` is "" when it was given back."""

    holder: str
    epoch: int
    renewals: int
    seconds: float


class Execute(Protocol):
    """Run one statement, committed: the number of rows it found, and its rows."""

    def __call__(self, sql: str, params: Sequence[Any]) -> tuple[int, list[tuple[Any, ...]]]: ...


@dataclass(frozen=True)
class LeaseRow:
    """The row of one name. Raises what the database raises."""

    table: str
    name: str
    execute: Execute

    def read(self) -> Row | None:
        _, rows = self.execute(
            f"SELECT holder, epoch, renewals, seconds FROM {self.table} WHERE name = %s",
            (self.name,),
        )
        return Row(*rows[0]) if rows else None

    def swap(self, old: Row | None, new: Row) -> bool:
        """Put ``new`` in the place of ``old``; False if something else stands there by now."""
        if old is None:
            return self._insert(new)
        found, _ = self.execute(
            f"UPDATE {self.table} SET holder = %s, epoch = %s, renewals = %s, seconds = %s "
            f"WHERE name = %s AND holder = %s AND epoch = %s AND renewals = %s",
            (*new, self.name, old.holder, old.epoch, old.renewals),
        )
        return found == 1

    def _insert(self, new: Row) -> bool:
        try:
            self.execute(
                f"INSERT INTO {self.table} (holder, epoch, renewals, seconds, name) "
                f"VALUES (%s, %s, %s, %s, %s)",
                (*new, self.name),
            )
        except IntegrityError:  # another was faster
            return False
        return True


class Term(NamedTuple):
    """A time of leading. ``until`` is when its holder stops trusting itself, on ``clock()``."""

    row: Row
    until: float

    @property
    def epoch(self) -> int:
        return self.row.epoch


class Deposed(Exception):
    """The row says that somebody else leads, or nobody."""


class Candidate:
    """One process in the election: what it has seen, and whether it leads.

    It has no thread and waits for nothing. Its methods raise what the database raises; what then
    became of a statement is unknown, and the next one finds out.
    """

    def __init__(
        self,
        row: LeaseRow,
        terms: Terms,
        holder: str,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self.terms, self.holder, self.clock = terms, holder, clock
        self.term: Term | None = None
        self.sees_a_leader_at_work = False
        self.seen: Row | None = None
        """The row as it was when this process last looked."""
        self._row = row
        self._seen_at = 0.0
        self._doubted = False

    @property
    def left(self) -> float:
        """Seconds for which it may still lead; none or less if it may not."""
        term = self.term
        return term.until - self.clock() if term else 0.0

    @property
    def leader(self) -> str:
        """Which other leads, as HOST:PID, as far as was seen; "" if none does."""
        if self.seen is None or self.seen.holder == self.holder:
            return ""
        return _without_token(self.seen.holder)

    def campaign(self) -> bool:
        """Look at the row, and take it if that is allowed. True if it leads now."""
        self.look()
        return self._is_free() and self.take()

    def look(self) -> None:
        """Look at the row, and note when it has changed."""
        row = self._row.read()
        if row != self.seen:
            self.sees_a_leader_at_work = self._is_renewed(row)
            self.seen = row
            self._seen_at = self.clock()  # after the answer: never older than it is

    def _is_renewed(self, row: Row | None) -> bool:
        before = self.seen
        return bool(row and before and row.holder and row[:2] == before[:2])

    def _is_free(self) -> bool:
        # Its own name is that of a term which it lost, or never knew that it had won.
        row = self.seen
        if row is None or row.holder in ("", self.holder):
            return True
        return self.clock() - self._seen_at >= row.seconds

    def take(self) -> bool:
        """Put itself into the row; False if the row is no more as it was seen."""
        old = self.seen
        epoch, renewals = (old.epoch, old.renewals) if old else (0, 0)
        return self._swap(old, Row(self.holder, epoch + 1, renewals + 1, self.terms.duration))

    def _swap(self, old: Row | None, new: Row) -> bool:
        asked = self.clock()  # before: a renewal is never taken for newer than it is
        if not self._row.swap(old, new):
            return False
        self.seen, self._seen_at = new, self.clock()
        self.term = Term(new, asked + self.terms.renew_deadline)
        self._doubted = False
        return True

    def renew(self) -> None:
        """Renew the lease. Raises ``Deposed`` if somebody else has it."""
        assert self.term is not None
        row: Row | None = self.term.row
        if self._doubted:  # an attempt of which nobody knows whether it took effect
            row = self._row.read()
        if row is None or row[:2] != self.term.row[:2]:
            raise Deposed(_by_whom(row))
        self._doubted = True
        if not self._swap(row, row._replace(renewals=row.renewals + 1)):
            row = self._row.read()
            if row is None or row[:2] != self.term.row[:2]:
                raise Deposed(_by_whom(row))

    def retire(self) -> None:
        """Stop leading, without a word to the database: the lease runs out."""
        self.term = None

    def resign(self) -> None:
        """Give the lease back, for another to take it at once."""
        term, self.term = self.term, None
        if term is not None:
            row = self._row.read() if self._doubted else term.row
            if row is not None and row[:2] == term.row[:2]:
                self._row.swap(row, row._replace(holder="", renewals=row.renewals + 1))

    def pause(self) -> float:
        """Seconds until it should look, or renew, again."""
        if self.term is not None:
            return max(0.0, min(self.terms.retry, self.left))
        look = min(LOOK_INTERVAL, self.terms.retry) * random.uniform(0.8, 1.0)  # not all as one
        if self.seen is None or not self.seen.holder:
            return look
        return min(look, max(0.01, self._seen_at + self.seen.seconds - self.clock()))


def _by_whom(row: Row | None) -> str:
    if row is None:
        return "its row is gone"
    return f"{_without_token(row.holder)} took the lease" if row.holder else "the lease was freed"


def _without_token(holder: str) -> str:
    return parse_identity(holder).without_token
