"""The agenda: a priority queue of due times."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

from daemonkit.clock import NEVER, Moment

Key = TypeVar("Key")


class Agenda(Generic[Key]):
    """Holds at most one due time for each key, ordered by the monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key, Moment]] = []
        self._valid: dict[Key, int] = {}  # the number of each key's current entry
        self._numbers = itertools.count()

    def put(self, key: Key, due: Moment) -> None:
        """Set when ``key`` is next due, or ``NEVER``. Replaces its earlier due time."""
        number = self._valid[key] = next(self._numbers)
        if due != NEVER:
            heapq.heappush(self._heap, (due.monotonic, number, key, due))

    def pop(self, now: Moment) -> Iterator[Key]:
        """Remove the keys that are due by ``now``, and yield them in order."""
        heap = self._heap
        while heap and heap[0][0] <= now.monotonic:
            _, number, key, _ = heapq.heappop(heap)
            if self._valid[key] == number:
                yield key

    def next_due(self) -> Moment:
        """The earliest due time; ``NEVER`` if there is none."""
        while self._heap:
            _, number, key, due = self._heap[0]
            if self._valid[key] == number:
                return due
            heapq.heappop(self._heap)
        return NEVER
