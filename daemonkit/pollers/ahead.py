"""Candidates that are read ahead, for the next ticks of a poller.

While batches are quick, the SELECT that finds candidates is a large part of their cost. One then
serves several batches. That is safe: a candidate is only a hint. Each batch locks its rows with the
queryset's filter, and reads the failures again.
"""

from __future__ import annotations

import time

from daemonkit.pollers.queue import Candidate, Queue

BATCHES = 4
"""How many batches one SELECT serves."""

KEPT_SECONDS = 0.1
"""How long candidates are kept. A row that belongs before them waits no longer than this."""


class Ahead:
    """The candidates of a poller on one database, between its ticks."""

    def __init__(self) -> None:
        self._kept: list[Candidate] = []
        self._read_at = float("-inf")
        self._is_alone = True

    def next(self, queue: Queue, size: int, *, seem_unblocked: bool) -> list[Candidate]:
        """The next ``size`` candidates. With ``seem_unblocked`` those that must wait may be among
        them: it seems that there are none."""
        is_quick = time.monotonic() - self._read_at < KEPT_SECONDS
        if not (is_quick and seem_unblocked and len(self._kept) >= size):
            reads_ahead = is_quick and seem_unblocked and self._is_alone
            self._read_at = time.monotonic()
            count = size * BATCHES if reads_ahead else size
            self._kept = queue.candidates(count, blocked=seem_unblocked)
        taken, self._kept = self._kept[:size], self._kept[size:]
        return taken

    def note(self, locked: int, asked: int) -> None:
        """How many of the candidates could be locked. If not all, others are at work on the same
        rows, and what is kept is theirs by now."""
        self._is_alone = locked == asked
        if not self._is_alone:
            self._kept = []
