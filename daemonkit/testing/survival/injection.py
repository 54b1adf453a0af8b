"""The one loss of a trial: the session is lost in a query or COMMIT of a daemon's tick."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from daemonkit.connections.wrappers import Wrapper
from daemonkit.testing.sessions import break_in_query, kill_session

_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|MERGE)\b", re.IGNORECASE)


class Point(NamedTuple):
    """Where a session is lost: in the n-th query of a trial's ticks, or in the n-th COMMIT.

    A statement that writes in autocommit also counts as a COMMIT. ``applied`` says whether the
    server executes it before the session is lost.
    """

    is_commit: bool
    number: int
    applied: bool


class Count:
    """The number of statements, and for each text the number of its first occurrence."""

    def __init__(self) -> None:
        self.total = 0
        self.first: dict[str, int] = {}

    def add(self, sql: str) -> None:
        self.total += 1
        self.first.setdefault(sql, self.total)


class Injection:
    """Counts the queries and commits of ticks, and loses the session in one of them. It is an
    ``Interceptor``."""

    def __init__(self, point: Point | None = None) -> None:
        self._point = point
        self.queries, self.commits = Count(), Count()
        self.lost = ""
        """The statement whose session was lost; "COMMIT" for the end of an ``atomic()`` block."""
        self.was_handled = False
        """Whether the same statement, with the same values, succeeded later: then the tick itself
        has retried it. After a lost COMMIT this is any other COMMIT."""
        self._values = ""
        self.is_working = False
        """Whether a tick is running. Statements outside of ticks do not count."""

    def on_query(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        wrapper = context["connection"]
        if not self._is_struck(str(sql), is_commit=False, writes=_commits_by_itself(wrapper, sql)):
            result = execute(sql, params, many, context)
            self._note_success(str(sql), repr(params))
            return result
        self._values = repr(params)
        if self._point and self._point.applied:
            execute(sql, params, many, context)
        return break_in_query(wrapper)

    def on_commit(self, wrapper: Wrapper, commit: Callable[[], None]) -> None:
        if not self._is_struck("COMMIT", is_commit=True, writes=True):
            commit()
            return self._note_success("COMMIT", "")
        if self._point and self._point.applied:
            wrapper.connection.commit()
            return break_in_query(wrapper)
        kill_session(wrapper)
        return commit()

    def _is_struck(self, sql: str, *, is_commit: bool, writes: bool) -> bool:
        if not self.is_working:
            return False
        if not is_commit:
            self.queries.add(sql)
        if writes:
            self.commits.add(sql)
        point = self._point
        if self.lost or point is None:
            return False
        if (point.is_commit and not writes) or (is_commit and not point.is_commit):
            return False
        if (self.commits if point.is_commit else self.queries).total != point.number:
            return False
        self.lost = sql
        return True

    def _note_success(self, sql: str, values: str) -> None:
        if self.lost and self.is_working and (sql, values) == (self.lost, self._values):
            self.was_handled = True


def _commits_by_itself(wrapper: Wrapper, sql: Any) -> bool:
    return not wrapper.in_atomic_block and bool(_WRITES.match(str(sql)))
