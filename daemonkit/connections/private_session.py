"""A private database session of daemonkit, on which every request has a deadline.

No unit of work cleans it and no pool lends it. Each request is one statement in autocommit or one
small transaction, so it works behind pgbouncer in transaction mode.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from django.db import connections

from daemonkit import conf
from daemonkit.connections.session_thread import NoAnswer, SessionThread, private_wrapper

Result = TypeVar("Result")
Answer: TypeAlias = tuple[int, list[tuple[Any, ...]]]

IDLE_SECONDS = 60.0
"""Seconds after which an unused session is closed. The next request opens a new one."""

DRIVER_SECONDS = 5.0
"""The driver's own time limit, in seconds. It ends an abandoned thread."""

MAX_STUCK_THREADS = 3
"""How many threads may hang in a driver's ``connect()`` at one time: it cannot be cut."""


class PrivateSession:
    """One session with the database of an alias. It is opened when it is first needed.

    A driver may block for longer than a deadline allows. So a separate thread talks to the server,
    and the caller waits for that thread. If it is late, its socket is cut and the thread is
    abandoned; the next request gets a new thread and a new session.

    ``seconds`` is the driver's own time limit, which ends an abandoned thread. ``name`` is what the
    server shows as the session's application. Any thread may call the methods. A forked child gets
    a new session.
    """

    def __init__(
        self, alias: str, seconds: float, *, name: str = "", idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._alias, self._seconds, self._name = alias, seconds, name
        self._idle_seconds = idle_seconds
        self.reset()
        _sessions.add(self)

    def reset(self) -> None:
        """Forget the session and its threads. For a forked child, which owns neither."""
        self._turns = _Turns()
        self._thread: SessionThread | None = None
        self._late: list[SessionThread] = []

    def execute(
        self, sql: str, params: Sequence[Any], within: float, *, urgent: bool = False
    ) -> Answer:
        """Run one statement in autocommit. Return the number of rows it found, and its rows.

        For ``within``, ``urgent`` and errors see ``run()``.
        """
        work = functools.partial(_execute, self._alias, sql, params)
        return self.run(work, within, urgent=urgent)

    def run(self, work: Callable[[], Result], within: float, *, urgent: bool = False) -> Result:
        """Call ``work()`` on the session's thread, and return its result.

        On that thread ``connections[alias]`` is the session's wrapper, so ``work`` may use the ORM
        with ``using(alias)``. Urgent requests are served before other waiting requests.

        Raises what ``work`` raises, and ``NoAnswer`` if there is no result after ``within``
        seconds. After an error the next request gets a new session.
        """
        deadline = time.monotonic() + within
        with self._turns.turn(within, urgent=urgent):
            thread = self._thread or self._start_thread()
            try:
                return thread.submit(work).result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                thread.abandon()
                self._late.append(thread)
                self._thread = None
                raise NoAnswer(f"no answer from the database in {within:.2g} s") from None

    @property
    def is_in_use(self) -> bool:
        return self._turns.is_taken

    @property
    def waiting(self) -> int:
        """How many requests are waiting."""
        return self._turns.waiting

    def close(self, within: float = 1.0) -> None:
        """Close the session. If the driver's ``close()`` takes longer than ``within`` seconds, cut
        it. The next request opens a new one."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.finish()
            thread.join(within)
            thread.abandon()

    def _start_thread(self) -> SessionThread:
        self._late = [thread for thread in self._late if thread.is_alive()]
        if len(self._late) >= MAX_STUCK_THREADS:
            raise NoAnswer("the database accepts connections and does not answer")
        make_wrapper = functools.partial(private_wrapper, self._alias, self._seconds, self._name)
        self._thread = thread = SessionThread(make_wrapper, self._idle_seconds)
        thread.start()
        return thread


class PrivateSessions:
    """The two private sessions of a daemon's process, each opened when first used.

    ``claims`` is for urgent requests: the lease and claims. ``ledger`` is for all other rows, so
    that a slow write there delays no renewal. ``claim_seconds`` is the driver's time limit for
    ``claims``.
    """

    def __init__(self, daemon: str, claim_seconds: float | None = None) -> None:
        self._name = f"daemonkit {daemon}"
        self._claim_seconds = claim_seconds or DRIVER_SECONDS

    @functools.cached_property
    def claims(self) -> PrivateSession:
        return PrivateSession(conf.database(), self._claim_seconds, name=self._name)

    @functools.cached_property
    def ledger(self) -> PrivateSession:
        return PrivateSession(conf.database(), DRIVER_SECONDS, name=self._name)

    def close(self) -> None:
        """Close both. A later request opens its session again."""
        for name in ("claims", "ledger"):
            if name in vars(self):
                getattr(self, name).close()


class _Turns:
    """A lock on a session, which urgent requests get first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.is_taken = False
        self.waiting = self._urgent_waiting = 0

    @contextlib.contextmanager
    def turn(self, within: float, *, urgent: bool) -> Iterator[None]:
        """Hold the lock. Raises ``NoAnswer`` if it is not free ``within`` this many seconds."""
        if not self._take(within, urgent=urgent):
            raise NoAnswer(f"daemonkit's session was not free within {within:.2g} s")
        try:
            yield
        finally:
            with self._changed:
                self.is_taken = False
                self._changed.notify_all()

    def _take(self, within: float, *, urgent: bool) -> bool:
        with self._changed:
            self.waiting += 1
            self._urgent_waiting += urgent
            is_ours = self._changed.wait_for(lambda: self._is_free(urgent=urgent), within)
            self.waiting -= 1
            self._urgent_waiting -= urgent
            self.is_taken = self.is_taken or is_ours
            return is_ours

    def _is_free(self, *, urgent: bool) -> bool:
        return not self.is_taken and (urgent or not self._urgent_waiting)


def _execute(alias: str, sql: str, params: Sequence[Any]) -> Answer:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        rows = list(cursor.fetchall()) if cursor.description else []
        return cursor.rowcount, rows


_sessions: weakref.WeakSet[PrivateSession] = weakref.WeakSet()


def _reset_in_child() -> None:
    for session in list(_sessions):
        session.reset()


os.register_at_fork(after_in_child=_reset_in_child)
