"""A database session of daemonkit's own, on which every request has a deadline.

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
"""A session that nobody has used for so long is closed. The next request opens a new one."""

DRIVER_SECONDS = 5.0
"""After so long the driver itself gives up: a thread that was left behind ends."""

MAX_STUCK_THREADS = 3
"""How many threads may hang in a driver's ``connect()``, which nobody can cut, at one time."""


class PrivateSession:
    """One session with the database of an alias. It is opened when it is first needed.

    No driver can be trusted to answer in time. So a thread of the session's own talks to the
    server, and the caller waits for that thread. A thread that is late has its socket cut and is
    left behind; the next request gets a new thread and a new session.

    ``seconds`` is the time after which the driver itself gives up, so that a thread which was left
    behind ends. ``name`` is what the server shows as the session's application. Any thread may
    call the methods. In a forked child the session is a new one.
    """

    def __init__(
        self, alias: str, seconds: float, *, name: str = "", idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._alias, self._seconds, self._name = alias, seconds, name
        self._idle_seconds = idle_seconds
        self.reset()
        _sessions.add(self)

    def reset(self) -> None:
        """Forget the session and its threads. For a forked child, which has neither."""
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
        """Return ``work()``. It is called on the session's thread.

        On that thread ``connections[alias]`` is the session's wrapper, so ``work`` may use the ORM
        with ``using(alias)``. Urgent requests are served before the others that wait.

        Raises what ``work`` raises, and ``NoAnswer`` if there is no result ``within`` so many
        seconds. After an error the next request has a new session.
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
        """How many requests wait for their turn."""
        return self._turns.waiting

    def close(self, within: float = 1.0) -> None:
        """End the session: by the driver's own good-bye if that takes no longer than ``within``
        seconds. The next request opens a new one."""
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
    """The two sessions that a daemon's process may have of its own, each made when first used.

    ``claims`` is for what must not wait: the lease and claims. ``ledger`` is for all other rows: a
    slow write there delays no renewal. ``claim_seconds`` is the driver's time limit for claims.
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
        """End both. A request after that opens its session again."""
        for name in ("claims", "ledger"):
            if name in vars(self):
                getattr(self, name).close()


class _Turns:
    """Who may use a session next. The urgent go first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.is_taken = False
        self.waiting = self._urgent_waiting = 0

    @contextlib.contextmanager
    def turn(self, within: float, *, urgent: bool) -> Iterator[None]:
        """Raises ``NoAnswer`` if it is not our turn within so many seconds."""
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
