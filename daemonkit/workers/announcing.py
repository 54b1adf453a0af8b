"""What a supervisor says while it runs: that its workers are ready, its pulse, its status."""

from __future__ import annotations

from collections.abc import Sequence

from daemonkit import signals
from daemonkit.listeners.log import logger
from daemonkit.signals import Announcer, announce
from daemonkit.workers.places import Place, Team

STATUS_INTERVAL = 1.0
"""Seconds from one look at what to say of the workers to the next."""


class Announcements:
    """Announces in the supervisor's name, when it is asked to and something is due.

    ``now`` is a moment of the monotonic clock.
    """

    def __init__(
        self, supervisor: Announcer, teams: Sequence[Team], places: Sequence[Place]
    ) -> None:
        self.is_ready = False
        self.next_pulse = 0.0
        self._supervisor, self._teams, self._places = supervisor, teams, places
        self._next_status = 0.0
        self._status = ""

    def announce_ready(self, now: float) -> None:
        """Once, when every place has a worker that is ready."""
        if not self.is_ready and all(each.worker and each.worker.is_ready for each in self._places):
            self.is_ready = True
            logger.info("supervisor is ready: %s", self.status())
            announce(signals.daemon_ready, self._supervisor)
            self._next_status = now

    def announce_pulse(self, now: float) -> None:
        """Every ``pulse`` seconds, unless a worker has been silent for too long."""
        if now >= self.next_pulse:
            self.next_pulse = now + self._supervisor.life.pulse
            workers = [place.worker for place in self._places]
            if not any(worker is not None and worker.is_silent(now) for worker in workers):
                announce(signals.daemon_pulse, self._supervisor)

    def announce_status(self, now: float) -> None:
        """When it has changed, but not more often than every ``STATUS_INTERVAL``."""
        if now >= self._next_status:
            self._next_status = now + STATUS_INTERVAL
            if (text := self.status()) != self._status:
                self._status = text
                announce(signals.daemon_status, self._supervisor, text=text)

    def status(self) -> str:
        """How all workers fare, in one line."""
        return "; ".join(
            team.status([place for place in self._places if place.team is team])
            for team in self._teams
        )
