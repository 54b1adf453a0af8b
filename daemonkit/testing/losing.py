"""A block in which database sessions are really lost, at a chosen moment."""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connections

from daemonkit.connections.wrappers import Wrapper
from daemonkit.testing.intercepting import intercepting
from daemonkit.testing.sessions import (
    break_in_query,
    kill_all_sessions,
    kill_session,
    refuse_in_memory,
)


class Loss(enum.Enum):
    """The moment at which a session is lost."""

    IDLE = "while idle"
    """At once: the next query finds that the session has ended."""
    QUERY = "in a query"
    """While the server works on a statement."""
    COMMIT = "in COMMIT"
    """While the server works on the COMMIT of an ``atomic()`` block."""


class Losing:
    """The sessions that were lost: what ``lost_connections()`` yields."""

    def __init__(
        self, moment: Loss, using: str, *, times: int, after: int, applied: bool | None
    ) -> None:
        self.moment, self.using, self.times, self.after = moment, using, times, after
        self.applied = moment is Loss.COMMIT if applied is None else applied
        self.count = 0
        """How many sessions have been lost."""
        self.statements: list[str] = []
        """The statements in which they were lost; "COMMIT" for a COMMIT."""
        self._seen = 0
        self._lock = threading.Lock()

    def is_time(self) -> bool:
        """Count a statement or COMMIT. Return whether it must lose its session."""
        with self._lock:
            self._seen += 1
            if not self.after < self._seen <= self.after + self.times:
                return False
            self.count += 1
            return True

    def on_query(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        if self.moment is not Loss.QUERY or not self.is_time():
            return execute(sql, params, many, context)
        self.statements.append(str(sql))
        if self.applied:
            execute(sql, params, many, context)
        return break_in_query(context["connection"])

    def on_commit(self, wrapper: Wrapper, commit: Callable[[], None]) -> None:
        if self.moment is not Loss.COMMIT or not self.is_time():
            return commit()
        self.statements.append("COMMIT")
        if self.applied:
            wrapper.connection.commit()
            return break_in_query(wrapper)
        kill_session(wrapper)
        return commit()


@contextlib.contextmanager
def lost_connections(
    moment: Loss = Loss.IDLE,
    *,
    using: str = "default",
    times: int = 1,
    after: int = 0,
    applied: bool | None = None,
) -> Iterator[Losing]:
    """Lose sessions of the alias ``using`` while the block runs: a context manager.

    ``Loss.IDLE`` kills, at once, every session of this user on the database. ``Loss.QUERY`` and
    ``Loss.COMMIT`` kill the session during a statement or COMMIT of this process: ``after`` of them
    pass, and the next ``times`` lose their session. ``applied`` says whether the server executes
    the statement before its session is lost. By default it executes a COMMIT, but not a query.

    MySQL and PostgreSQL kill the session. On SQLite the driver's connection is closed. Raises
    ``RuntimeError`` in a transaction and for SQLite in memory; the message says what to do instead.
    """
    refuse_in_memory(using)
    _refuse_in_transaction(using)
    losing = Losing(moment, using, times=times, after=after, applied=applied)
    if moment is Loss.IDLE:
        losing.count = kill_all_sessions(using)
        yield losing
        return
    with intercepting(using, losing):
        yield losing


def _refuse_in_transaction(alias: str) -> None:
    if connections[alias].in_atomic_block:
        raise RuntimeError(
            f"lost_connections() would lose the transaction that is open on {alias!r}: use "
            f"TransactionTestCase, or with pytest the fixture transactional_db"
        )
