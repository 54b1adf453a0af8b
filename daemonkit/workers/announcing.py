"""What a supervisor announces while it runs: readiness, pulse and status."""

from __future__ import annotations

from collections.abc import Sequence

from daemonkit import signals
from daemonkit.listeners.log import logger
from daemonkit.signals import Announcer, announce
from daemonkit.workers.places import Place, Team

STATUS_INTERVAL = 1.0
"""Seconds between two checks whether the status has changed."""


class Announcements:
    """Sends the supervisor's signals when they are due.

    ``now`` is a time of the monotonic clock.
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
        """Announce once that every place has a ready worker."""
        if not self.is_ready and all(each.worker and each.worker.is_ready for each in self._places):
            self.is_ready = True
            logger.info("supervisor is ready: %s", self.status())
            announce(signals.daemon_ready, self._supervisor)
            self._next_status = now

    def announce_pulse(self, now: float) -> None:
        """Announce the pulse every ``pulse`` seconds, unless a worker has been silent too long."""
        if now >= self.next_pulse:
            self.next_pulse = now + self._supervisor.life.pulse
            workers = [place.worker for place in self._places]
            if not any(worker is not None and worker.is_silent(now) for worker in workers):
                announce(signals.daemon_pulse, self._supervisor)

    def announce_status(self, now: float) -> None:
        """Announce the status when it changes, at most once every ``STATUS_INTERVAL``."""
        if now >= self._next_status:
            self._next_status = now + STATUS_INTERVAL
            if (text := self.status()) != self._status:
                self._status = text
                announce(signals.daemon_status, self._supervisor, text=text)

    def status(self) -> str:
        """Return the state of all workers in one line."""
        return "; ".join(
            team.status([place for place in self._places if place.team is team])
            for team in self._teams
        )
