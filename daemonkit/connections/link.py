"""One link: what we know of one thread's connection to one database, and how to drop or cut it.

Drivers differ only in here.
"""

from __future__ import annotations

import contextlib
import select
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from django.db import OperationalError

from daemonkit.connections.lending import pool_of
from daemonkit.connections.pauses import site_of
from daemonkit.connections.sockets import cut_socket, descriptor_of
from daemonkit.connections.statements import begins_transaction, ends_transaction, is_plain
from daemonkit.connections.wrappers import Wrapper, is_in_memory, reset

ALIVE_BYPASS = 0.5
"""Seconds after its last good query for which a connection is asked by a look at its descriptor
alone. HikariCP calls the idea the alive bypass window, and has the same default."""


class Holder(Protocol):
    """The thread that holds a link: how deep it is in units of work, and since when."""

    depth: int
    began: float


class Link:
    """The raw connection behind one of Django's wrappers, while it stands.

    It sits in the wrapper's ``execute_wrappers`` as the witness of its queries, and in the place
    of the wrapper's ``is_usable``, which Django calls before the first query of a unit of work.
    """

    def __init__(self, wrapper: Wrapper, holder: Holder) -> None:
        self.wrapper = weakref.ref(wrapper)
        """Call it: None once Django has let go of its wrapper."""
        self._holder = holder
        wrapper.execute_wrappers.insert(0, self)  # first: others take theirs off by pop()
        wrapper.is_usable = self.is_usable
        self.connected()

    def connected(self) -> None:
        """Look at a raw connection that was just made."""
        wrapper = self.wrapper()
        assert wrapper is not None
        self.raw = wrapper.connection
        self.proven = time.monotonic()
        self.suspect = self.begun = False
        self.callers = False
        self.pause = 0.0
        self.pooled = pool_of(self.raw) is not None
        session = getattr(self.raw, "pgconn", None) or getattr(self.raw, "info", None)
        self._session = session if hasattr(session, "transaction_status") else None  # psycopg's
        self._tells = self._session is not None or hasattr(self.raw, "in_transaction")
        self.site, self._site_noted = "", 0.0
        self.descriptor, self._inode = descriptor_of(self.raw)
        self._poll = select.poll()
        if self.descriptor is not None:
            self._poll.register(self.descriptor, select.POLLIN)

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        """Witness one query: an execute wrapper, as ``connection.execute_wrapper()`` takes them."""
        if not self._tells and not is_plain(sql):
            self._heard(sql)
        now = time.monotonic()
        if now - self._site_noted > 1.0:  # rarely enough to cost nothing
            self._site_noted, self.site = now, site_of(sys._getframe(1))
            self.pause = max(self.pause, self.unused_for(now))
        result = execute(sql, params, many, context)
        self.proven = now
        return result

    def longest_pause(self, wrapper: Wrapper, now: float) -> float:
        """Seconds for which the unit of work that is about to end left it unused at a stretch."""
        if wrapper.connection is None or not self.was_used(wrapper):
            return self.pause
        return max(self.pause, self.unused_for(now))

    def unused_for(self, now: float) -> float:
        """Seconds since its last good query or the start of the unit of work."""
        return now - max(self.proven, self._holder.began)

    def _heard(self, sql: Any) -> None:
        """A statement that may leave a transaction open, or the session changed, when it is raw."""
        self.suspect = True
        if begins_transaction(sql):
            self.begun = True
        elif ends_transaction(sql):
            self.begun = False

    def is_usable(self) -> bool:
        """Django's ``is_usable()``, without its round trip when the session answered just now."""
        wrapper = self.wrapper()
        assert wrapper is not None
        if self._holder.depth and not wrapper.errors_occurred and self.answered_lately():
            return True
        usable: bool = type(wrapper).is_usable(wrapper)
        if usable:
            self.proven = time.monotonic()
        return usable

    def was_used(self, wrapper: Wrapper) -> bool:
        """Whether the unit of work asked for a cursor or began a transaction, going by what Django
        notes when it validates a connection; it does not do that for a pooled one."""
        return bool(wrapper.health_check_done or wrapper.errors_occurred or self.pooled)

    def answered_lately(self) -> bool:
        """Whether a query went well a moment ago and the server has said nothing since.

        A server that hangs up makes the descriptor readable. So do a notice or a TLS record, and
        then the round trip is made after all.
        """
        if self.descriptor is None or time.monotonic() - self.proven > ALIVE_BYPASS:
            return False
        return not self._poll.poll(0)

    def is_calm(self, wrapper: Wrapper, now: float, *, keeps: bool) -> bool:
        """Whether nothing at all is to be done about it, before or after a unit of work: what
        Django's ``close_if_unusable_or_obsolete`` and ``left_open`` ask, in one look."""
        settings = wrapper.settings_dict
        close_at = wrapper.close_at
        return (
            wrapper.connection is self.raw
            and not wrapper.in_atomic_block
            and wrapper.autocommit == settings["AUTOCOMMIT"]
            and not wrapper.errors_occurred
            and not wrapper.savepoint_ids
            and not self.suspect
            and not self.pooled
            and not (self._tells and self._transaction_open())
            and (close_at is None or now < close_at or (keeps and settings["CONN_MAX_AGE"] == 0))
        )

    def left_open(self) -> str | None:
        """What a unit of work has left behind in the session or the wrapper, in words."""
        wrapper = self.wrapper()
        if wrapper is None:
            return None
        if wrapper.in_atomic_block or wrapper.savepoint_ids or wrapper.closed_in_transaction:
            return "left an atomic() block open"
        if wrapper.connection is None:
            return None
        if wrapper.autocommit != wrapper.settings_dict["AUTOCOMMIT"]:
            return "left autocommit off"
        if wrapper.settings_dict["AUTOCOMMIT"] and self._transaction_open():
            return "left a transaction open"
        return None

    def _transaction_open(self) -> bool:
        """Whether the session is in a transaction that Django knows nothing of: a raw BEGIN."""
        raw: Any = self.raw
        if self._session is not None:
            return bool(self._session.transaction_status != 0)
        if hasattr(raw, "in_transaction"):  # sqlite3
            return bool(raw.in_transaction)
        if not self.suspect:
            return False
        # MySQL's client library does not tell. BEGIN without its end is a transaction; after
        # anything else that may have opened one (a CALL, two statements in one) a ROLLBACK costs
        # half a query, and a SET autocommit shows in the status that came with its answer.
        if self.begun:
            return True
        raw.rollback()
        self.suspect = False
        return not raw.get_autocommit()

    def drop(self) -> None:
        """Close the socket and reset the wrapper, whatever state they are in. Never raises.

        Hard: the server sees an end of file and rolls back. Nothing polite is sent, because
        politeness to a peer that is gone can wait for ever.
        """
        wrapper = self.wrapper()
        if wrapper is None:
            return
        raw: Any = wrapper.connection
        if is_in_memory(wrapper):  # to close it would be to destroy the database
            with contextlib.suppress(Exception):
                raw.rollback()
        elif raw is not None:
            wrapper.connection = None
            self.cut()
            with contextlib.suppress(Exception):
                raw.close()
            if pool := pool_of(raw):  # it counts what it has lent
                with contextlib.suppress(Exception):
                    pool.putconn(raw)
        reset(wrapper)

    def cut(self) -> None:
        """End the session from outside, even in the middle of a query. Any thread may call it.

        ``shutdown`` works on the socket, not on the descriptor, so it wakes a read in C code that
        runs without the GIL. SQLite has no socket; its ``interrupt()`` ends the statement.
        """
        if self.descriptor is not None:
            cut_socket(self.descriptor, self._inode)  # a no-op if it was closed since
        elif hasattr(self.raw, "interrupt"):
            with contextlib.suppress(Exception):
                self.raw.interrupt()

    def refuse(self) -> None:
        """Let no statement and no COMMIT through any more, for the rest of the process."""
        wrapper = self.wrapper()
        if wrapper is not None:
            wrapper.execute_wrappers.append(_refuse)
            wrapper._commit = _refuse
        self.cut()


def _refuse(*_: object) -> None:
    raise OperationalError("daemonkit has cut this connection: the process is being stopped")


def forget(wrapper: Wrapper) -> None:
    """Have a wrapper connect anew at its next query, without a word to the connection it has."""
    wrapper.connection = None
    reset(wrapper)
    for witness in wrapper.execute_wrappers:
        if isinstance(witness, Link):
            witness.pause = 0.0
