"""The work on the rows of one batch: what a poller's class says, and how failures are noted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from daemonkit import signals
from daemonkit.errors import one_line
from daemonkit.pollers.attempts import Attempts, stored
from daemonkit.pollers.keys import shown
from daemonkit.schedules.backoff import Backoff
from daemonkit.signals import Announcer, announce

logger = logging.getLogger("daemonkit")

BEAT_INTERVAL = 0.2
"""Seconds between two beats of a tick that goes from row to row."""


class StillInQueue(Exception):
    """``process()`` has returned, and the row still matches the poller's queryset."""

    def __init__(self) -> None:
        super().__init__("still in the queue after process(): it must make the row leave, or say "
                         "done = ... in the class")  # fmt: skip


class Poller(Announcer, Protocol):
    """What the work needs of a poller's command."""

    batch_size: int
    max_attempts: int
    claim_seconds: float
    done: str | Mapping[str, Any] | None
    backoff: Backoff

    @property
    def stopping(self) -> bool: ...
    @property
    def takes_batches(self) -> bool: ...
    def process(self, row: Any) -> Any: ...
    def process_batch(self, rows: list[Any]) -> Any: ...
    def beat(self, message: str = "") -> None: ...
    def wait(self, seconds: float) -> bool: ...


class Work:
    """One poller at work on its queue."""

    def __init__(self, poller: Poller, attempts: Attempts) -> None:
        self.poller, self.attempts = poller, attempts
        self._beaten_at = 0.0

    def each(self, rows: Sequence[Any], after_each: Callable[[], None]) -> int:
        """Process rows until the daemon must stop. Returns how many were processed."""
        if not rows:
            return 0
        if self.poller.takes_batches:
            self.poller.process_batch(list(rows))
            after_each()
            return len(rows)
        self._beaten_at = time.monotonic()
        for number, row in enumerate(rows):
            if number and self.poller.stopping:
                return number
            self.poller.process(row)
            after_each()
            self.beat()
        return len(rows)

    def beat(self) -> None:
        """Restart ``tick_timeout``, for the next row."""
        now = time.monotonic()
        if now - self._beaten_at > BEAT_INTERVAL:
            self._beaten_at = now
            self.poller.beat()

    def fail(
        self, text: str, attempts: int, error: BaseException, note: Callable[..., Any] | None = None
    ) -> None:
        """Note and log a failed attempt, the ``attempts``-th of its row."""
        poller = self.poller
        is_dead = attempts >= poller.max_attempts
        pause = None if is_dead else poller.backoff.pause(attempts)
        (note or self.attempts.note_failure)(text, attempts, stored(error), pause)
        what = f"row {shown(text)} failed, attempt {attempts} of {poller.max_attempts}"
        if pause is None:
            logger.error("%s: %s: it is a dead letter now: %s", poller.name, what,
                         one_line(error), exc_info=error)  # fmt: skip
            announce(signals.row_dead, poller, key=shown(text), attempts=attempts, error=error)
        else:
            logger.warning("%s: %s, again in %.2g s: %s", poller.name, what, pause, one_line(error))
