"""The leases that one tick holds: renewed from another thread, given back at the end."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from django.db import Error

from daemonkit.connections.cutting import resume_connections, suspend_connections
from daemonkit.connections.private_session import PrivateSession
from daemonkit.errors import one_line
from daemonkit.pollers.attempts import Attempts
from daemonkit.process.identity import this_process

logger = logging.getLogger("daemonkit")

RENEWALS = 4
"""Renewals in ``claim_seconds``, if all is well."""

RELIED_ON = 2 / 3
"""The part of ``claim_seconds`` for which a renewal is relied on. The rest is for cutting the work
and for clocks that do not run equally fast."""


class LeaseLost(Exception):
    """The rows are no longer leased to this tick."""


class Held:
    """The leases of one tick, under a name of its own.

    ``session`` is the one that renews them. ``may_renew`` is asked before each renewal: the leases
    of a tick that is stuck must end.
    """

    def __init__(
        self,
        attempts: Attempts,
        seconds: float,
        session: PrivateSession,
        may_renew: Callable[[], bool],
    ) -> None:
        self._attempts, self._seconds, self._session = attempts, seconds, session
        self._may_renew = may_renew
        self._owner = str(this_process())
        self._texts: set[str] = set()
        self._lock = threading.RLock()
        self._until = 0.0
        self._lost = ""
        self._working: set[int] = set()
        self._is_over = threading.Event()

    def claim(self, texts: Sequence[str]) -> dict[str, int]:
        """Lease rows. Returns the attempts of those that are leased now."""
        asked = time.monotonic()
        ours = self._attempts.claim(texts, self._owner, self._seconds)
        with self._lock:
            self._texts |= ours.keys()
            self._until = asked + self._seconds * RELIED_ON
        return ours

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the leases during the block."""
        self._until = time.monotonic() + self._seconds
        renewing = threading.Thread(target=self._renew, name="daemonkit-leases", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            self._is_over.set()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Work on a leased row. If the leases are lost, the connections of its thread are cut, and
        it raises ``LeaseLost``."""
        thread = threading.get_ident()
        with self._lock:
            self.refuse_if_lost()
            self._working.add(thread)
        try:
            yield
        except Exception as error:
            if self._lost:
                raise LeaseLost(self._lost) from error
            raise
        finally:
            with self._lock:
                self._working.discard(thread)
                resume_connections(thread)

    def refuse_if_lost(self) -> None:
        """Raise ``LeaseLost`` if the leases are lost."""
        if self._lost:
            raise LeaseLost(self._lost)

    # What becomes of them

    def release(self, texts: Sequence[str]) -> None:
        """End leases of rows that are done, in the caller's transaction. Raises ``LeaseLost`` if
        one is no longer held: the transaction must not commit."""
        with self._lock:
            if self._attempts.release(texts, self._owner) != len(texts):
                raise LeaseLost("another process has taken a row that was done here")
            self._texts -= set(texts)

    def note_failure(self, text: str, attempts: int, error: str, pause: float | None) -> None:
        """Note a failed attempt, which ends the lease."""
        with self._lock:
            if not self._attempts.end_in_failure(text, self._owner, attempts, error, pause):
                raise LeaseLost("another process has taken a row that failed here")
            self._texts.discard(text)

    def give_back(self, texts: Sequence[str]) -> None:
        """End leases of rows that were not worked on."""
        with self._lock:
            self._attempts.give_back(texts, self._owner)
            self._texts -= set(texts)

    def give_back_the_rest(self) -> None:
        """End all leases. If the database is away, they end by themselves."""
        self._is_over.set()
        with contextlib.suppress(Error):
            if not self._lost:
                self.give_back(sorted(self._texts))

    # The other thread

    def _renew(self) -> None:
        while not self._is_over.wait(self._seconds / RENEWALS):
            self._try_to_renew()
            if self._is_over.is_set() or self._lost:
                return

    def _try_to_renew(self) -> None:
        why, asked = "a tick is past its tick_timeout", time.monotonic()
        with self._lock:
            texts = set(self._texts)
        if self._may_renew():
            try:
                work = functools.partial(self._attempts.renew, texts, self._owner, self._seconds)
                found = self._session.run(work, self._seconds / RENEWALS, urgent=True)
            except Exception as error:
                why = one_line(error)
            else:
                return self._renewed(texts, found, asked)
        if time.monotonic() + self._seconds / RENEWALS >= self._until:
            self._lose(f"the leases could not be renewed: {why}")
        return None

    def _renewed(self, texts: set[str], found: int, asked: float) -> None:
        with self._lock:
            are_the_same = texts == self._texts
            if found >= len(texts):
                self._until = asked + self._seconds * RELIED_ON
        if found < len(texts) and are_the_same and not self._is_over.is_set():
            self._lose("another process has taken them")

    def _lose(self, why: str) -> None:
        with self._lock:
            self._lost = f"leases lost: {why}"
            logger.warning("%s: %s", self._attempts.poller, self._lost)
            suspend_connections(set(self._working), self._lost)
