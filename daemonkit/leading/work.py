"""Units of work that may go on only while this process leads, or holds a claim."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Protocol

from daemonkit.connections.cutting import resume_connections, suspend_connections
from daemonkit.leading.fencing import StaleEpoch, guarded


class Guarded(Protocol):
    """A claim, under which a run works."""

    def guarded(self) -> AbstractContextManager[None]: ...


claim_of_this_work: ContextVar[Guarded | None] = ContextVar("claim", default=None)
"""The claim under which the current run of an exclusive job works."""


def guarded_work(daemon: str) -> AbstractContextManager[None]:
    """A transaction that commits only while the claim of the current run holds; for other work a
    plain one."""
    claim = claim_of_this_work.get()
    return guarded(daemon, None) if claim is None else claim.guarded()


class EntitledWork:
    """The threads whose work may run only while this process leads, or holds a claim.

    ``present_epoch`` returns the epoch in which it does so now; None if it does not. ``without``
    says so in an error."""

    def __init__(
        self, name: str, present_epoch: Callable[[], int | None], without: str = "does not lead"
    ) -> None:
        self._name, self._present_epoch, self._without = name, present_epoch, without
        self._began_in: ContextVar[int | None] = ContextVar("epoch", default=None)
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        self._revoked: set[int] = set()
        """The threads whose last work has lost its right to go on."""

    @property
    def is_under_way(self) -> bool:
        return bool(self._threads)

    @property
    def epoch(self) -> int | None:
        """The epoch in which the current unit of work began; None outside of one."""
        return self._began_in.get()

    @property
    def was_revoked(self) -> bool:
        """Whether this thread's current or last work lost its right to go on."""
        return threading.get_ident() in self._revoked

    def entitled(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """Return a unit of work that raises ``StaleEpoch`` if this process does not lead."""

        @functools.wraps(work)
        def entitled() -> Any:
            with self._working():
                return work()

        return entitled

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        thread = threading.get_ident()
        token = self._began_in.set(self._begin(thread))
        try:
            yield
        except StaleEpoch:
            self._revoked.add(thread)
            raise
        finally:
            self._began_in.reset(token)
            with self._lock:
                self._threads.discard(thread)
                resume_connections(thread)

    def _begin(self, thread: int) -> int:
        with self._lock:
            epoch = self._present_epoch()
            if epoch is None:
                self._revoked.add(thread)
                raise StaleEpoch(f"{self._name} {self._without}")
            self._revoked.discard(thread)
            self._threads.add(thread)
            return epoch

    def revoke(self, reason: str) -> None:
        """Cut the connections of all working threads.

        These threads can open no connection until their work has ended. Call it only when
        ``present_epoch`` already returns None.
        """
        with self._lock:
            self._revoked |= self._threads
            suspend_connections(set(self._threads), reason)
