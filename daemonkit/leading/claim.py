"""A claim: a lock with a name and a deadline, which one process holds and renews.

The rules are those of Kubernetes' client-go (``leaderelection.go``). A row names the holder, and
each renewal changes the row's counter. The other processes read the row, each with its own clock,
and may acquire the claim when the row has not changed for the time that it states. The holder
stops relying on the claim earlier: its time counts from before it sent its last renewal. So no two
clocks are ever compared; they need only run equally fast. Each change is one statement that names
the row as it was last read, so that of two concurrent attempts one fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from daemonkit.clock import Clock
from daemonkit.leading.rows import OwnedRow, Row
from daemonkit.leading.terms import Terms
from daemonkit.process.identity import parse_identity


class Term(NamedTuple):
    """A time during which a process holds a claim.

    ``until`` is when the holder stops relying on it, on the claim's clock.
    """

    row: Row
    until: float

    @property
    def epoch(self) -> int:
        return self.row.epoch


class ClaimLost(Exception):
    """This process no longer holds the claim, according to the row."""


class Claim:
    """One process's view of a claim: the row as it was last read, and whether it is held here.

    ``holder`` is a unique name, which not even another claim of this process has. A claim has no
    thread and never waits: its user calls ``renew()`` every ``terms.retry`` seconds. The methods
    raise the errors of the database. The outcome of a failed statement is unknown, and the next
    call finds it out.
    """

    noun = "claim"
    """The word for it in error messages."""

    def __init__(
        self,
        row: OwnedRow,
        terms: Terms,
        holder: str,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.terms, self.holder = terms, holder
        self.clock = clock or Clock().since_boot
        self.term: Term | None = None
        self.seen: Row | None = None
        """The row as this process last read it."""
        self._row = row
        self._seen_at = 0.0
        self._is_uncertain = False

    @property
    def left(self) -> float:
        """Seconds for which the claim may still be relied on; 0 or less if it is not held."""
        term = self.term
        return term.until - self.clock() if term else 0.0

    @property
    def epoch(self) -> int | None:
        """The number of this term, which grows by one each time the claim is acquired.

        None if the claim is not held. ``guarded_by()`` refuses a transaction of an older epoch.
        """
        return self.term.epoch if self.term else None

    @property
    def other_holder(self) -> str:
        """The other process that holds it, as HOST:PID; "" if the last look showed none."""
        if self.seen is None or self.seen.holder == self.holder:
            return ""
        return _without_token(self.seen.holder)

    def take(self) -> bool:
        """Read the row, and acquire the claim if it is free.

        It is free if it was released, or not renewed for the time that the row states. Returns
        True if this process holds it now.
        """
        self.look()
        return self.is_free and self.take_as_seen()

    def look(self) -> None:
        """Read the row, and note the time if it has changed."""
        row = self._row.read()
        if row != self.seen:
            self.seen = row
            self._seen_at = self.clock()  # after the answer, so that the row never looks too old

    @property
    def is_free(self) -> bool:
        """Whether the claim may be acquired now, according to the row as last read."""
        # This process's own name is left over from a term that it lost or never knew it had won.
        row = self.seen
        if row is None or row.holder in ("", self.holder):
            return True
        return self.clock() >= self.free_at

    @property
    def free_at(self) -> float:
        """When the claim becomes free if it is not renewed again, on the claim's clock."""
        return self._seen_at + self.seen.seconds if self.seen else self._seen_at

    def take_as_seen(self) -> bool:
        """Acquire the claim; False if the row has changed since it was last read."""
        old = self.seen
        epoch = old.epoch + 1 if old else self._row.first_epoch()
        renewals = old.renewals + 1 if old else 1
        return self._swap(old, Row(self.holder, epoch, renewals, self.terms.duration))

    def _swap(self, old: Row | None, new: Row) -> bool:
        asked = self.clock()  # before the statement, so that a renewal never counts for too long
        if not self._row.swap(old, new):
            return False
        self.seen, self._seen_at = new, self.clock()
        self.term = Term(new, asked + self.terms.renew_deadline)
        self._is_uncertain = False
        return True

    def renew(self) -> None:
        """Renew the claim. Raises ``ClaimLost`` if another process has acquired it."""
        assert self.term is not None
        row: Row | None = self.term.row
        if self._is_uncertain:  # the outcome of the last renewal is unknown
            row = self._row.read()
        if row is None or row[:2] != self.term.row[:2]:
            raise ClaimLost(self._how_it_was_lost(row))
        self._is_uncertain = True
        if not self._swap(row, row._replace(renewals=row.renewals + 1)):
            row = self._row.read()
            if row is None or row[:2] != self.term.row[:2]:
                raise ClaimLost(self._how_it_was_lost(row))

    def _how_it_was_lost(self, row: Row | None) -> str:
        if row is None:
            return "its row is gone"
        if not row.holder:
            return f"the {self.noun} was released"
        return f"{_without_token(row.holder)} took the {self.noun}"

    def forget(self) -> None:
        """Give it up without telling the database, where it expires."""
        self.term = None

    def give_back(self) -> None:
        """Release it, so that another process can acquire it at once."""
        term, self.term = self.term, None
        if term is not None:
            row = self._row.read() if self._is_uncertain else term.row
            if row is not None and row[:2] == term.row[:2]:
                released = row._replace(holder="", renewals=row.renewals + 1)
                if self._row.swap(row, released):
                    self.seen, self._seen_at = released, self.clock()


def _without_token(holder: str) -> str:
    return parse_identity(holder).without_token
