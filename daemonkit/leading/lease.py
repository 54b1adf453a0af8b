"""The lease: the claim whose holder leads. All processes of a daemon compete for it."""

from __future__ import annotations

import random

from daemonkit.leading.claim import Claim
from daemonkit.leading.rows import Row

LOOK_INTERVAL = 0.5
"""The longest time between two looks of a standby, in seconds. With it, a lease that is released
is acquired within a second."""


class Candidate(Claim):
    """One process in the election: its view of the lease, and whether it leads."""

    noun = "lease"
    sees_a_leader_at_work = False

    def look(self) -> None:
        before = self.seen
        super().look()
        if self.seen != before:
            self.sees_a_leader_at_work = _is_renewed(before, self.seen)

    def pause(self) -> float:
        """Return the seconds until the next look or renewal."""
        if self.term is not None:
            return max(0.0, min(self.terms.retry, self.left))
        look = min(LOOK_INTERVAL, self.terms.retry) * random.uniform(0.8, 1.0)  # spread them
        if self.seen is None or not self.seen.holder:
            return look
        return min(look, max(0.01, self.free_at - self.clock()))


def _is_renewed(before: Row | None, row: Row | None) -> bool:
    return bool(row and before and row.holder and row[:2] == before[:2])
