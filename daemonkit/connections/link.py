"""One link: what we know of one thread's connection to one database, and how to drop it."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from django.db import Error, OperationalError

from daemonkit.connections.observed_errors import ObservedErrors
from daemonkit.connections.pauses import site_of
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
    """The thread that holds a link: whether it is in a unit of work, and since when."""

    began: float

    @property
    def in_unit(self) -> bool: ...


class Link:
    """One of Django's wrappers, as its thread cares for it.

    It witnesses the wrapper's queries (``execute_wrappers``) and errors (``wrap_database_errors``),
    and stands in for its ``is_usable()``, which Django asks before the first query of a unit of
    work.
    """

    def __init__(self, wrapper: Wrapper, holder: Holder) -> None:
        self.wrapper = weakref.ref(wrapper)
        """Call it: None once Django has let go of its wrapper."""
        self._holder = holder
        self._is_dropping = False
        self.callers = False
        """Whether a transaction was open when the unit of work began: then it is the caller's."""
        wrapper.execute_wrappers.insert(0, self.witness)  # first: others take theirs off by pop()
        wrapper.is_usable = self.is_usable
        self.errors = ObservedErrors(wrapper, self)
        self.connected()

    def connected(self) -> None:
        """Look at a connection that was just made."""
        wrapper = self.wrapper()
        assert wrapper is not None
        self.callers = False
        self.pause = 0.0
        self.site, self._site_noted = "", 0.0
        self._look(wrapper)

    def _look(self, wrapper: Wrapper) -> None:
        settings = wrapper.settings_dict
        self._autocommit: bool = settings["AUTOCOMMIT"]
        self._closes_after_use = settings["CONN_MAX_AGE"] == 0
        self.has_health_checks: bool = settings["CONN_HEALTH_CHECKS"]
        self.raw = RawConnection(
            wrapper.connection, vendor=wrapper.vendor, autocommit=self._autocommit
        )
        self.errors.forget_session()
        self.settled()

    def look_again(self, wrapper: Wrapper) -> None:
        """Look at the connection if it was exchanged or closed, which nobody announces."""
        if wrapper.connection is not self.raw.handle:
            self._look(wrapper)
            self.suspect()

    def settled(self) -> None:
        """Note whether there is anything left that has to be looked at in detail."""
        self.needs_a_look = self.raw.is_pooled or self.errors.seen or self.raw.is_suspect

    def suspect(self) -> None:
        """Something was sent that we did not see: ask the session before it is trusted again."""
        self.raw.suspect()
        self.settled()

    # The witness of its queries

    def witness(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        """Witness one query: an execute wrapper, as ``connection.execute_wrapper()`` takes them."""
        raw = self.raw
        if raw.heard is not None and not (self._autocommit and is_plain(sql)):
            self.needs_a_look = True
            raw.heard.hear(sql)
        now = monotonic()
        if now - self._site_noted > 1.0:  # rarely enough to cost nothing
            self._site_noted, self.site = now, site_of(sys._getframe(1))
            self.pause = max(self.pause, self.unused_for(now))
        try:
            result = execute(sql, params, many, context)
        except Error:
            self._look_whose_error_it_is(context["cursor"])
            raise
        raw.answered_at = now
        return result

    def _look_whose_error_it_is(self, cursor: Any) -> None:
        """A cursor that was kept while its connection was replaced says that the session is lost,
        and means the old one."""
        if self.errors.lost is not None:
            connection = getattr(cursor, "connection", None)
            self.errors.from_elsewhere = not self.raw.is_socket_of(connection)

    def longest_pause(self, wrapper: Wrapper, now: float) -> float:
        """Seconds for which the unit of work that is about to end left it unused at a stretch."""
        if wrapper.connection is None or not self.was_used(wrapper):
            return self.pause
        return max(self.pause, self.unused_for(now))

    def unused_for(self, now: float) -> float:
        """Seconds since its last good query or the start of the unit of work."""
        return now - max(self.raw.answered_at, self._holder.began)

    # Questions

    def is_usable(self) -> bool:
        """Django's ``is_usable()``, without its round trip when the session answered just now.

        In a unit of work a connection that is not usable is closed here. Django would close it
        next, but raises what the driver raises: mysqlclient for a handle that is closed already.
        """
        wrapper = self.wrapper()
        assert wrapper is not None
        if not self._holder.in_unit or self._is_dropping:  # engines ask while they close
            return bool(type(wrapper).is_usable(wrapper))
        if (not wrapper.errors_occurred and self.raw.answered_lately()) or self.answers():
            return True
        if not wrapper.in_atomic_block:
            self.drop()
        return False

    def answers(self) -> bool:
        """Ask the server whether it is there, and whether this is still the same session."""
        wrapper = self.wrapper()
        if wrapper is None or wrapper.connection is None:
            return False
        if self.raw.session.is_closed():
            return False
        usable = bool(type(wrapper).is_usable(wrapper)) and not self.raw.has_reconnected()
        if usable:
            self.raw.answered_at = monotonic()
        return usable

    def has_been_hung_up(self) -> bool:
        """Whether the server has said something, and then does not answer."""
        return self.raw.has_something_to_read() and not self.answers()

    def was_used(self, wrapper: Wrapper) -> bool:
        """Whether the unit of work asked for a cursor or began a transaction, going by what Django
        notes when it validates a connection; it does not do that for a pooled one."""
        return bool(wrapper.health_check_done or wrapper.errors_occurred or self.raw.is_pooled)

    def is_calm(self, wrapper: Wrapper, now: float, keeps: bool) -> bool:
        """Whether nothing at all is to be done about it, before or after a unit of work: what
        Django's ``close_if_unusable_or_obsolete`` and ``doubts.left_open`` ask, in one look."""
        raw, close_at = self.raw, wrapper.close_at
        return (
            wrapper.connection is raw.handle
            and not wrapper.in_atomic_block
            and wrapper.autocommit == self._autocommit
            and not wrapper.errors_occurred
            and not self.needs_a_look
            and not (raw.tells and not raw.session.seems_idle())
            and (close_at is None or now < close_at or (keeps and self._closes_after_use))
        )

    def is_in_transaction(self, wrapper: Wrapper) -> bool:
        """Whether a transaction is open, begun by Django or in SQL. It may ask the server.

        If the server does not answer, what was last known decides: the caller whose transaction is
        lost has to hear of it, and not have the rest of its work done in a new session.
        """
        if is_in_transaction(wrapper):
            return True
        self.look_again(wrapper)
        try:
            return self.raw.session.is_in_transaction()
        except Exception:
            return self.raw.session.seemed_in_transaction()

    # Ending it

    def roll_back(self, wrapper: Wrapper) -> None:
        """Roll back what is open, if that can be done. Never raises."""
        with contextlib.suppress(Exception):
            wrapper.rollback()
            self.raw.session.was_rolled_back()

    def drop(self) -> None:
        """Close the connection without a word to the server, whatever state it is in. Never raises.

        The socket is shut down first: the server sees an end of file and rolls back, and nothing
        that follows can wait for a peer that is gone. Then the wrapper closes itself, because an
        engine that overrides ``close()`` has state of its own to reset.
        """
        wrapper = self.wrapper()
        if wrapper is None:
            return
        if is_in_memory(wrapper):
            roll_back_in_memory(wrapper)
        else:
            self.look_again(wrapper)
            self.raw.cut()
            if self.raw.is_pooled:
                with contextlib.suppress(Exception):
                    self.raw.handle.close()  # or the pool would lend it again as a healthy one
            self._close(wrapper)
            if wrapper.in_atomic_block or wrapper.connection is not None:
                reset(wrapper)  # inside atomic() it has closed the connection and kept it
                wrapper.connection = None
        wrapper.rollback_exc = None
        self._look(wrapper)  # and hold nothing of the connection any longer

    def _close(self, wrapper: Wrapper) -> None:
        self._is_dropping = True
        try:
            wrapper.close()
        except Exception:
            pass  # a driver's close() may raise on a handle that is closed already
        finally:
            self._is_dropping = False

    def refuse(self) -> None:
        """Let no statement and no COMMIT through any more, for the rest of the process."""
        wrapper = self.wrapper()
        if wrapper is not None:
            wrapper.execute_wrappers.append(_refuse)
            wrapper.commit = _refuse
        self.raw.cut()


def forget(wrapper: Wrapper) -> None:
    """Have a wrapper connect anew at its next query, without a word to the connection it has."""
    wrapper.connection = None
    reset(wrapper)
    link = link_of(wrapper)
    if link is not None:
        link.pause = 0.0


def link_of(wrapper: Wrapper) -> Link | None:
    """The link that witnesses the queries of a wrapper, or None."""
    for witness in wrapper.execute_wrappers:
        if isinstance(link := getattr(witness, "__self__", None), Link):
            return link
    return None


def _refuse(*_: object) -> None:
    raise OperationalError("daemonkit has cut this connection: the process is being stopped")
