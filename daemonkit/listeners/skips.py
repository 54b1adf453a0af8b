"""The log lines about due times that were skipped, of which there may be one every second."""

from __future__ import annotations

import logging
from collections import Counter

from daemonkit.clock import Moment

logger = logging.getLogger("daemonkit")

_LEVELS = {
    "overlap": logging.WARNING,
    "grace": logging.WARNING,
    "back-off": logging.WARNING,
    "ledger": logging.ERROR,
}
"""Log levels by the reason of a skip. Any other skip is as somebody wants it."""


class Skips:
    """Counts the skips of one daemon's jobs, and logs some of them."""

    def __init__(self, daemon: str) -> None:
        self._daemon = daemon
        self._counts: Counter[tuple[str, str]] = Counter()

    def log(self, job: str, due: Moment, reason: str) -> None:
        """Log the first, the tenth, the hundredth... skip for the same reason.

        A standby may skip a due time every second.
        """
        self._counts[job, reason] += 1
        times = self._counts[job, reason]
        if 10 ** (len(str(times)) - 1) == times:
            how_often = f" (the {times}th time)" if times > 1 else ""
            logger.log(
                _LEVELS.get(reason, logging.INFO),
                "%s due %s did not run: %s%s",
                f"{self._daemon} {job}" if job else self._daemon,
                due.utc.isoformat(" ", "seconds"),
                reason,
                how_often,
                extra={"job": job},
            )
