"""Turns: workers that have reached a limit are replaced one at a time, old out before new in."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daemonkit.workers.places import Place
from daemonkit.workers.worker import Worker

LONGEST_TURN = 10.0
"""Seconds for which the next one waits for a successor to be ready."""


class Turns:
    """Says whose turn it is. It signals nobody and reads no clock: it is asked with a moment."""

    def __init__(self, places: Sequence[Place], now: float) -> None:
        self._places = places
        self._turn: tuple[Place, Worker] | None = None
        self._until = now + LONGEST_TURN

    def next(self, now: float) -> Worker | None:
        """The worker that is to leave now, if any."""
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
        """When the next turn begins at the latest."""
        return self._until if self._waiting() else math.inf

    def _waiting(self) -> list[tuple[Place, Worker]]:
        filled = [(place, place.worker) for place in self._places if place.worker is not None]
        return [each for each in filled if each[1].limit and not each[1].is_leaving]

    def _is_over(self) -> bool:
        """Whether the last one to leave has a successor that is ready; at first, whether all are
        ready."""
        if self._turn is None:
            return all(place.worker and place.worker.is_ready for place in self._places)
        place, last = self._turn
        return place.worker is not None and place.worker is not last and place.worker.is_ready
