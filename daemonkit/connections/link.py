"""One link: the state of one thread's connection to one database, and how to drop it."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any, Protocol

from django.db import Error, OperationalError

from daemonkit.connections.observed_errors import ObservedErrors
from daemonkit.connections.raw_connection import RawConnection
from daemonkit.connections.statements import is_plain
from daemonkit.connections.wrappers import (
    Wrapper,
    is_in_memory,
    is_in_transaction,
    reset,
    roll_back_in_memory,
)


class Holder(Protocol):
    """The thread that holds a link: whether it is in a unit of work, and when that began."""

    began: float

    @property
    def in_unit(self) -> bool: ...


class Link:
    """What daemonkit adds to one of Django's database wrappers.

    It observes the wrapper's queries (``execute_wrappers``) and errors (``wrap_database_errors``),
    and replaces its ``is_usable()``, which Django calls before the first query of a unit of work.
    """

    def __init__(self, wrapper: Wrapper, holder: Holder) -> None:
        self.wrapper = weakref.ref(wrapper)
        """A weak reference: call it. It returns None once Django has deleted the wrapper."""
        self._holder = holder
        self._is_dropping = False
        self.belongs_to_caller = False
        """Whether a transaction was open when the unit of work began. Then it is not touched."""
        wrapper.execute_wrappers.insert(0, self.witness)  # first: others remove theirs by pop()
        wrapper.is_usable = self.is_usable
        self.errors = ObservedErrors(wrapper, self)
        self.raw = RawConnection(None, vendor=wrapper.vendor, autocommit=True)
        self.connected()

    def connected(self) -> None:
        """Inspect a connection that was just opened."""
        wrapper = self.wrapper()
        assert wrapper is not None
        self.belongs_to_caller = False
        self.pause = 0.0
        self.site, self._site_noted = "", 0.0
        self._inspect(wrapper)

    def _inspect(self, wrapper: Wrapper) -> None:
        settings = wrapper.settings_dict
        self._autocommit: bool = settings["AUTOCOMMIT"]
        self._closes_after_use = settings["CONN_MAX_AGE"] == 0
        self.has_health_checks: bool = settings["CONN_HEALTH_CHECKS"]
        if wrapper.connection is not self.raw.handle and not is_in_memory(wrapper):
            self.raw.release()
        self.raw = RawConnection(
            wrapper.connection, vendor=wrapper.vendor, autocommit=self._autocommit
        )
        self.errors.forget_session()
        self.update_needs_check()

    def inspect_if_replaced(self, wrapper: Wrapper) -> None:
        """Inspect the connection if it was replaced or closed: no signal reports that."""
        if wrapper.connection is not self.raw.handle:
            self._inspect(wrapper)
            self.suspect()

    def update_needs_check(self) -> None:
        """Note whether the connection must be checked in detail after the unit of work."""
        self.needs_check = self.raw.is_pooled or self.errors.seen or self.raw.is_suspect

    def suspect(self) -> None:
        """Something was sent that we did not see: ask the server before relying on the session."""
        self.raw.suspect()
        self.update_needs_check()

    # Observing its queries

    def witness(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        """Observe one query: an execute wrapper, as ``connection.execute_wrapper()`` takes it."""
        raw = self.raw
        if raw.tracked is not None and not (self._autocommit and is_plain(sql)):
            self.needs_check = True
            raw.tracked.note_statement(sql)
        now = monotonic()
        if now - self._site_noted > 1.0:  # rarely enough to cost nothing
            self._site_noted, self.site = now, _site_of(sys._getframe(1))
            self.pause = max(self.pause, self.unused_for(now))
        try:
            result = execute(sql, params, many, context)
        except Error:
            self._note_whose_error(context["cursor"])
            raise
        raw.answered_at = now
        return result

    def _note_whose_error(self, cursor: Any) -> None:
        """Note whether an error about a lost session concerns another session: a cursor that was
        kept while its connection was replaced reports the loss of the old one."""
        if self.errors.lost is not None:
            connection = getattr(cursor, "connection", None)
            self.errors.from_elsewhere = not self.raw.is_socket_of(connection)

    def longest_pause(self, wrapper: Wrapper, now: float) -> float:
        """The longest time, in seconds, that the unit of work left the connection unused."""
        if wrapper.connection is None or not self.was_used(wrapper):
            return self.pause
        return max(self.pause, self.unused_for(now))

    def unused_for(self, now: float) -> float:
        """Seconds since its last good query or the start of the unit of work."""
        return now - max(self.raw.answered_at, self._holder.began)

    # Questions

    def is_usable(self) -> bool:
        """Django's ``is_usable()``, without its round trip if the session answered just now.

        In a unit of work an unusable connection is closed here. Django would close it next, but
        lets the driver's errors out: mysqlclient raises for a handle that is closed already.
        """
        wrapper = self.wrapper()
        assert wrapper is not None
        if not self._holder.in_unit or self._is_dropping:  # some engines call this in close()
            return bool(type(wrapper).is_usable(wrapper))
        if (not wrapper.errors_occurred and self.raw.answered_lately()) or self.answers():
            return True
        if not wrapper.in_atomic_block:
            self.drop()
        return False

    def answers(self) -> bool:
        """Ask the server: does it answer, and is this still the same session?"""
        wrapper = self.wrapper()
        if wrapper is None or wrapper.connection is None:
            return False
        if self.raw.session.is_closed():
            return False
        try:
            usable = bool(type(wrapper).is_usable(wrapper)) and not self.raw.has_reconnected()
        except BaseException as error:
            self.errors.note_interruption(error)
            raise
        if usable:
            self.raw.answered_at = monotonic()
        return usable

    def was_closed_by_server(self) -> bool:
        """Whether the server has closed the session: there is data to read, but no answer."""
        return self.raw.has_data_to_read() and not self.answers()

    def was_used(self, wrapper: Wrapper) -> bool:
        """Whether the unit of work asked for a cursor or began a transaction. Django sets
        ``health_check_done`` then, except for a pooled connection, which counts as used."""
        return bool(wrapper.health_check_done or wrapper.errors_occurred or self.raw.is_pooled)

    def is_clean(self, wrapper: Wrapper, now: float, keeps: bool) -> bool:
        """Whether the connection needs no work before or after a unit of work: a fast form of
        Django's ``close_if_unusable_or_obsolete()`` and of ``drop_reasons.left_open()``."""
        raw, close_at = self.raw, wrapper.close_at
        return (
            wrapper.connection is raw.handle
            and not wrapper.in_atomic_block
            and wrapper.autocommit == self._autocommit
            and not wrapper.errors_occurred
            and not self.needs_check
            and not (raw.reports_transactions and not raw.session.seems_idle())
            and (close_at is None or now < close_at or (keeps and self._closes_after_use))
        )

    def is_in_transaction(self, wrapper: Wrapper) -> bool:
        """Whether a transaction is open, begun by Django or in SQL. May ask the server.

        If the server does not answer, the last known state decides. A caller whose transaction is
        lost must get an error: the rest of its work must not run in a new session.
        """
        if is_in_transaction(wrapper):
            return True
        self.inspect_if_replaced(wrapper)
        try:
            return self.raw.session.is_in_transaction()
        except Exception:
            return self.raw.session.seemed_in_transaction()

    # Ending it

    def roll_back(self, wrapper: Wrapper) -> None:
        """Roll back the open transaction, if possible. Never raises."""
        with contextlib.suppress(Exception):
            wrapper.rollback()
            self.raw.session.was_rolled_back()

    def drop(self) -> None:
        """Close the connection without sending anything, whatever its state. Never raises.

        The socket is shut down first: the server sees an end of file and rolls back, and no later
        step can block on a peer that is gone. Then the wrapper's own ``close()`` is called, because
        an engine that overrides it may have state to reset.
        """
        wrapper = self.wrapper()
        if wrapper is None:
            return
        if is_in_memory(wrapper):
            roll_back_in_memory(wrapper)
        else:
            self.inspect_if_replaced(wrapper)
            self.raw.cut()
            if self.raw.is_pooled:
                with contextlib.suppress(Exception):
                    self.raw.handle.close()  # otherwise the pool would lend it again
            self._close(wrapper)
            if wrapper.in_atomic_block or wrapper.connection is not None:
                reset(wrapper)  # inside atomic() close() keeps the closed connection
                wrapper.connection = None
        wrapper.rollback_exc = None
        self._inspect(wrapper)  # this also releases the old connection

    def _close(self, wrapper: Wrapper) -> None:
        self._is_dropping = True
        try:
            wrapper.close()
        except Exception:
            pass  # a driver's close() may raise on a handle that is closed already
        finally:
            self._is_dropping = False

    def refuse(self) -> None:
        """Refuse every statement and COMMIT until the process ends."""
        wrapper = self.wrapper()
        if wrapper is not None:
            wrapper.execute_wrappers.append(_refuse)
            wrapper.commit = _refuse
        self.raw.cut()


def forget(wrapper: Wrapper) -> None:
    """Make a wrapper reconnect at its next query, without closing its present connection."""
    wrapper.connection = None
    reset(wrapper)
    link = link_of(wrapper)
    if link is not None:
        link.pause = 0.0


def link_of(wrapper: Wrapper) -> Link | None:
    """The link that observes the queries of a wrapper, or None."""
    for witness in wrapper.execute_wrappers:
        if isinstance(link := getattr(witness, "__self__", None), Link):
            return link
    return None


def _refuse(*_: object) -> None:
    raise OperationalError("daemonkit has cut this connection: the process is being stopped")


def _site_of(frame: FrameType | None) -> str:
    """The file and line of the nearest frame that is neither Django's nor ours."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if module not in ("django", "daemonkit"):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "somewhere"
