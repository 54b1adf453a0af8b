"""Puts back the signal handlers that the ticks of a loop have changed."""

from __future__ import annotations

import logging

from daemonkit.process.signal_handlers import restore_signals

logger = logging.getLogger("daemonkit")

RESTORE_INTERVAL = 0.05
"""Seconds between two checks in a loop that does not wait between its ticks. A loop that waits
checks before each wait."""


class Restoration:
    """Restores the handlers of one life. Times are monotonic."""

    def __init__(self, daemon: str, begun: float) -> None:
        self._daemon, self._restored_at = daemon, begun
        self._known: list[str] = []

    def is_due(self, now: float) -> bool:
        return now - self._restored_at > RESTORE_INTERVAL

    def restore(self, now: float) -> None:
        """Put back what has changed, and warn of each change once."""
        self._restored_at = now
        if news := [each for each in restore_signals() if each not in self._known]:
            self._known += news
            logger.warning(
                "%s: a tick has changed %s; it is put back after each tick",
                self._daemon,
                ", ".join(news),
            )
