"""Units of work that may go on only while this process leads."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from daemonkit.connections.cutting import resume_connections, suspend_connections
from daemonkit.leading.fencing import StaleEpoch

_epoch: contextvars.ContextVar[int | None] = contextvars.ContextVar("epoch", default=None)


def epoch_of_this_work() -> int | None:
    """Return the epoch in which the current unit of work began; None outside of one."""
    return _epoch.get()


class EntitledWork:
    """The threads whose work may run only while this process leads.

    ``present_epoch`` returns the epoch in which this process leads now; None if it does not lead.
    """

    def __init__(self, name: str, present_epoch: Callable[[], int | None]) -> None:
        self._name, self._present_epoch = name, present_epoch
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        self._without_leadership: set[int] = set()
        """The threads whose last work outlived the leadership."""

    @property
    def is_under_way(self) -> bool:
        return bool(self._threads)

    @property
    def lost_leadership(self) -> bool:
        """Whether this thread's current or last work ran while the leadership was lost."""
        return threading.get_ident() in self._without_leadership

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
        token = _epoch.set(self._begin(thread))
        try:
            yield
        except StaleEpoch:
            self._without_leadership.add(thread)
            raise
        finally:
            _epoch.reset(token)
            with self._lock:
                self._threads.discard(thread)
                resume_connections(thread)

    def _begin(self, thread: int) -> int:
        with self._lock:
            epoch = self._present_epoch()
            if epoch is None:
                self._without_leadership.add(thread)
                raise StaleEpoch(f"{self._name} does not lead")
            self._without_leadership.discard(thread)
            self._threads.add(thread)
            return epoch

    def revoke(self, reason: str) -> None:
        """Cut the connections of all working threads.

        These threads can open no connection until their work has ended. Call it only when
        ``present_epoch`` already returns None.
        """
        with self._lock:
            self._without_leadership |= self._threads
            suspend_connections(set(self._threads), reason)
