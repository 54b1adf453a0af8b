"""Teams and places: which workers a supervisor runs, and when it may start each of them."""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from daemonkit.daemon import Daemon
from daemonkit.exits import Exit
from daemonkit.settings.settings import Settings
from daemonkit.workers.worker import Worker

EARLY_DEATH = 10.0
"""A worker that ends within this many seconds has died early. Its successor may do the same."""

SHORTEST_PAUSE = 0.1
"""Seconds to wait before replacing a worker that was stopped, but not by its supervisor.

A signal to the whole process group may reach the supervisor a moment later.
"""


class Fate(enum.Enum):
    """What happens to a place whose worker has ended."""

    FILLED_AGAIN = enum.auto()
    GIVEN_UP = enum.auto()
    """The daemon's schedule has no further due time, or an order has stopped the worker for
    good."""
    FATAL = enum.auto()
    """A restart would not help: all workers must end."""


@dataclass(frozen=True)
class Team:
    """The workers of one daemon. Each worker calls ``live``."""

    daemon: Daemon
    settings: Settings
    live: Callable[[], Any]

    @property
    def name(self) -> str:
        return self.daemon.name

    def places(self) -> Iterator[Place]:
        workers = self.settings.workers
        for number in range(1, workers + 1):
            yield Place(self, number, f"{self.name}.{number}" if workers > 1 else self.name)

    def status(self, places: Sequence[Place]) -> str:
        """Return its state: "import_prices 4 of 4 ready, 1207 ticks, 2 failed, 41 of 90 files"."""
        workers = [place.worker for place in places if place.worker is not None]
        ticks = sum(place.ticks for place in places)
        failed = sum(place.failed for place in places)
        ready = sum(worker.is_ready for worker in workers)
        words = [f"{self.name} {ready} of {self.settings.workers} ready"]
        words += [f"{ticks} tick{'s' * (ticks != 1)}"] if ticks else []
        words += [f"{failed} failed"] if failed else []
        words += sorted({text for each in workers for text in (each.leadership, each.progress)})
        return ", ".join(filter(None, words))

    def __str__(self) -> str:
        workers = self.settings.workers
        return f"{self.name} ({workers} workers)" if workers > 1 else self.name


def team_of(
    daemon: Daemon,
    settings: Settings,
    live: Callable[[], Any],
    ending: Callable[[], AbstractContextManager[None]],
) -> Team:
    """What a supervisor needs to run a daemon in workers, each of which calls ``live`` in a block
    of ``ending``.

    Raises ``CommandError`` (exit code 2) for invalid settings, as the life itself would.
    """
    if settings.leader:
        from daemonkit.leading.requirements import refuse_where_none_can_lead

        refuse_where_none_can_lead(daemon.name)
    daemon.check_class(settings.workers)

    def live_alone() -> None:
        daemon.is_supervised = True
        with ending():
            live()

    return Team(daemon, settings, live_alone)


class Place:
    """The place of one worker: its present worker, and when the next one may start."""

    def __init__(self, team: Team, number: int, label: str) -> None:
        self.team = team
        self.number = number
        self.label = label
        self.worker: Worker | None = None
        self.due = 0.0
        self.is_over = False
        """Whether its daemon has finished, so that it is not filled again."""
        self.deaths = 0
        """How many workers in a row have died early."""
        self._ended_ticks = self._ended_failed = 0  # of workers that have ended
        self._was_ready = self._had_success = False

    @property
    def ticks(self) -> int:
        return self._ended_ticks + (self.worker.ticks if self.worker else 0)

    @property
    def failed(self) -> int:
        return self._ended_failed + (self.worker.failed if self.worker else 0)

    def clear(self, worker: Worker) -> None:
        """Remove the worker, which has ended, and keep its counts."""
        self.worker = None
        self._ended_ticks += worker.ticks
        self._ended_failed += worker.failed
        self._was_ready |= worker.is_ready
        self._had_success |= worker.has_succeeded

    def fate(self, worker: Worker, code: int) -> Fate:
        """Return what the exit code of the last worker means for the place."""
        if worker.dismissal or ((worker.finished or self.is_over) and code == Exit.OK):
            return Fate.GIVEN_UP
        if code == Exit.MISCONFIGURED and not self._had_success:
            return Fate.FATAL
        if code == Exit.USAGE and not self._was_ready:
            return Fate.FATAL
        return Fate.FILLED_AGAIN

    def pause_after(self, worker: Worker, code: int) -> float:
        """Return how many seconds to wait before the next worker starts.

        0 after a worker that was asked to stop, or that ran for a while. The pause grows when
        several workers in a row die early.
        """
        if worker.is_leaving and code == Exit.OK:
            self.deaths = 0
            return 0.0
        if worker.age >= EARLY_DEATH:
            self.deaths = 0
        self.deaths += 1
        free = 1 if worker.is_ready else 0  # no pause after the first death of a ready worker
        pause = self.team.daemon.backoff.pause(self.deaths - free) if self.deaths > free else 0.0
        return max(pause, SHORTEST_PAUSE) if code in (Exit.OK, -signal.SIGTERM) else pause
