"""Turns: workers that have reached a limit are replaced one at a time.

The old worker ends before the new one starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from daemonkit.workers.places import Place
from daemonkit.workers.worker import Worker

LONGEST_TURN = 10.0
"""Seconds to wait for a successor to be ready before the next worker is replaced."""


class Turns:
    """Decides which worker is replaced next. It sends no signal and reads no clock."""

    def __init__(self, places: Sequence[Place], now: float) -> None:
        self._places = places
        self._turn: tuple[Place, Worker] | None = None
        self._until = now + LONGEST_TURN

    def next(self, now: float) -> Worker | None:
        """Return the worker that must stop now, if any."""
        if now < self._until and not self._is_over():
            return None
        self._turn = next(iter(self._waiting()), None)
        if self._turn is None:
            return None
        _, worker = self._turn
        self._until = now + worker.settings.stop_timeout + LONGEST_TURN
        return worker

    @property
    def deadline(self) -> float:
        """The latest time at which the next turn begins."""
        return self._until if self._waiting() else math.inf

    def _waiting(self) -> list[tuple[Place, Worker]]:
        filled = [(place, place.worker) for place in self._places if place.worker is not None]
        return [each for each in filled if each[1].limit and not each[1].is_leaving]

    def _is_over(self) -> bool:
        """Whether the last worker that was replaced has a ready successor.

        Before the first turn: whether all workers are ready.
        """
        if self._turn is None:
            return all(place.worker and place.worker.is_ready for place in self._places)
        place, last = self._turn
        return place.worker is not None and place.worker is not last and place.worker.is_ready
