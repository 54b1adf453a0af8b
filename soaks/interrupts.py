"""Exceptions that a signal handler raises, at a random moment of a unit of work."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from random import Random
from types import FrameType

SHORTEST, LONGEST = 1e-5, 5e-3
"""Seconds until the signal comes. It falls into every part of a unit of work, as the delay is
drawn from each order of magnitude alike."""


class Interrupted(BaseException):
    """As KeyboardInterrupt."""


class TimeIsUp(Exception):
    """As the exception of a library that limits a call by SIGALRM."""


class Interrupts:
    """Raise in the main thread, at most once for each ``soon()``."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._kind: type[BaseException] | None = None
        self.raised = 0
        signal.signal(signal.SIGALRM, self._on_alarm)

    @contextlib.contextmanager
    def soon(self) -> Iterator[None]:
        """Let an exception be raised, perhaps, before the block ends."""
        delay = SHORTEST * (LONGEST / SHORTEST) ** self._random.random()
        self._kind = self._random.choice((Interrupted, KeyboardInterrupt, SystemExit, TimeIsUp))
        signal.setitimer(signal.ITIMER_REAL, delay)
        try:
            yield
        finally:
            self._kind = None
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        if self._kind is not None and _is_in_a_pool(frame):
            signal.setitimer(signal.ITIMER_REAL, SHORTEST)  # a moment later
            return
        kind, self._kind = self._kind, None
        if kind is not None:
            self.raised += 1
            raise kind


def _is_in_a_pool(frame: FrameType | None) -> bool:
    """Whether the code of psycopg_pool is running.

    An exception that is raised in the middle of its ``getconn()`` loses a place of the pool for
    good, with Django alone as well. Nothing outside of it can know which connection was taken.
    """
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("psycopg_pool"):
            return True
        frame = frame.f_back
    return False
