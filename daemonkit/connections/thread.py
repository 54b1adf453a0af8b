"""The connections of one thread: its links, and how deep it is in units of work.

Connections are cleaned, dropped and closed here. ``units.py`` has the public functions.
"""

from __future__ import annotations

import threading
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from django.db import OperationalError, connections
from django.db.backends.signals import connection_created

from daemonkit.connections import callproc, refusals
from daemonkit.connections.cache_closing import close_caches
from daemonkit.connections.link import Link
from daemonkit.connections.raw_connection import pool_of
from daemonkit.connections.sockets import cut_socket, descriptor_of
from daemonkit.connections.thread_end import AtThreadEnd
from daemonkit.connections.wrappers import Wrapper

if TYPE_CHECKING:
    from daemonkit.connections.drop_reasons import Failure


MIN_IDLE_TIMEOUT = 1.0
"""Seconds. The shortest limit that a server accepts, so shorter pauses are ignored."""


class Coroutine(Protocol):
    """The unit of work of a coroutine whose queries run on a thread."""

    error: BaseException | None

    @property
    def is_over(self) -> bool: ...


class ThreadConnections:
    """One thread's links, and the units of work that are open on it."""

    def __init__(self) -> None:
        self.depth = 0
        """How many nested blocks the thread is in."""
        self.outermost_block: weakref.ref[Any] | None = None
        self.coroutines: list[Coroutine] = []
        self.error_of_coroutines: BaseException | None = None
        self.began = 0.0
        self.keeps_between_units = False
        self.links: list[Link] = []
        self.lent: Any = None
        """A connection that psycopg_pool has lent and that no wrapper holds yet."""
        self.loan: object = None
        self._sockets: list[tuple[weakref.ref[Any], int, int]] = []

    @property
    def in_unit(self) -> bool:
        return bool(self.depth or self.coroutines)

    def begin(self) -> None:
        """Before the outermost unit of work: close connections by Django's rules, and have the
        others validated before their first query."""
        if refusals.reasons:
            refusals.lift_here()
        self.began = now = monotonic()
        for link in self.links:
            wrapper = link.wrapper()
            if wrapper is None:
                continue
            link.pause = 0.0
            try:
                if not link.is_clean(wrapper, now, self.keeps_between_units):
                    link.belongs_to_caller = link.is_in_transaction(wrapper)
                    if link.belongs_to_caller or wrapper.connection is None:
                        continue
                    if link.errors.read_only is not None or link.errors.interrupted is not None:
                        link.drop()
                    self._clean(link, wrapper)
                    link.errors.clear()
                    link.update_needs_check()
                link.belongs_to_caller = False
                if wrapper.queries_log and not wrapper.force_debug_cursor:
                    wrapper.queries_log.clear()
                wrapper.health_check_enabled, wrapper.health_check_done = True, False
            except Exception as error:
                link.belongs_to_caller = wrapper.in_atomic_block
                self._drop_unknown(link, wrapper, error)

    def end(self, error: BaseException | None) -> None:
        """After the outermost unit of work: drop the connections that may be broken, and keep or
        close the others by Django's rules."""
        behind: list[Failure] = []
        if error is not None:
            behind = self._failures_behind(error)
        now = monotonic()
        for link in self.links:
            wrapper = link.wrapper()
            if wrapper is None or link.belongs_to_caller:
                continue
            try:
                pause = (
                    link.longest_pause(wrapper, now) if now - self.began > MIN_IDLE_TIMEOUT else 0.0
                )
                if error is not None or not link.is_clean(wrapper, now, self.keeps_between_units):
                    self._settle(link, wrapper, error, behind)
                if pause > MIN_IDLE_TIMEOUT:
                    from daemonkit.connections.pauses import warn_of_pause  # few ticks pause

                    warn_of_pause(wrapper, pause, link.site)
                wrapper.health_check_enabled = link.has_health_checks
            except Exception as trouble:
                self._drop_unknown(link, wrapper, trouble)
        if refusals.reasons:
            refusals.lift_here()
        close_caches()

    def _failures_behind(self, error: BaseException) -> list[Failure]:
        """The database errors behind the exception that ended a unit of work."""
        from daemonkit.connections import drop_reasons, unit_end  # only loaded after an error

        unit_end.drop_unprepared(self.adopt())
        self.give_back_lent()
        behind = drop_reasons.failures(error, self.links)
        unit_end.warn_of_foreign_connections(behind)
        return behind

    def _settle(
        self, link: Link, wrapper: Wrapper, error: BaseException | None, behind: list[Failure]
    ) -> None:
        from daemonkit.connections import unit_end

        if not unit_end.drop_if_unhealthy(link, wrapper, error, behind):
            self._clean(link, wrapper)
        link.update_needs_check()

    def _drop_unknown(self, link: Link, wrapper: Wrapper, error: Exception) -> None:
        """Drop a connection whose inspection failed, so that the others are still handled."""
        from daemonkit.connections import unit_end

        if not link.belongs_to_caller:
            unit_end.drop_unknown(link, wrapper, error)

    def distrust(self) -> None:
        """In a unit of work: have each connection validated before its next query."""
        for link in self.links:
            wrapper = link.wrapper()
            if wrapper is not None and not link.is_in_transaction(wrapper):
                wrapper.health_check_enabled, wrapper.health_check_done = True, False

    def adopt(self) -> list[Link]:
        """Make a link for each open connection of this thread that has none; return the new links.
        What was sent on them is unknown."""
        found = [
            self._link(wrapper)
            for wrapper in connections.all(initialized_only=True)
            if wrapper.connection is not None and self._is_new(wrapper)
        ]
        for link in found:
            link.suspect()
        return found

    def drop(self, wrapper: Wrapper) -> None:
        """Drop the connection of one wrapper, whether it has a link or not."""
        links = [link for link in self.links if link.wrapper() is wrapper]
        for link in links:
            link.drop()
        if not links:
            wrapper.close()

    def connected(self, wrapper: Wrapper) -> None:
        """Called when a wrapper has connected.

        It gets a link if it is ``connections[alias]`` now. No unit of work touches any other
        wrapper: the code that made it may hold a lock or LISTEN on it.
        """
        self.lent = None
        for link in self.links:
            if link.wrapper() is wrapper:
                link.connected()
                return
        is_djangos = any(wrapper is each for each in connections.all(initialized_only=True))
        if not is_djangos:
            self.register_socket(wrapper.connection)
        elif self._is_new(wrapper):
            self._link(wrapper)

    def _is_new(self, wrapper: Wrapper) -> bool:
        if wrapper._thread_ident != threading.get_ident():
            return False  # shared by another thread, which cleans it
        return not any(link.wrapper() is wrapper for link in self.links)

    def _link(self, wrapper: Wrapper) -> Link:
        self.lent = None  # now the wrapper returns it
        self.links = [link for link in self.links if link.wrapper() is not None]
        self.links.append(link := Link(wrapper, self))
        return link

    def register_socket(self, raw: Any) -> None:
        """Let ``cut()`` also cut a driver's connection that has no link."""
        descriptor, inode = descriptor_of(raw)
        if descriptor is not None:
            alive = [each for each in self._sockets if each[0]() is not None]
            self._sockets = [*alive, (weakref.ref(raw), descriptor, inode)]

    def close_at_end(self) -> None:
        """Close the connections that the ending thread has left open. Otherwise they would stay
        open until the garbage collector runs. A wrapper that is shared with other threads is kept.
        """
        for link in self.links:
            wrapper = link.wrapper()
            if wrapper is not None and not wrapper.allow_thread_sharing:
                close(link)

    def cut(self, *, for_good: bool) -> None:
        """Cut all sessions of this thread. Any thread may call this."""
        for link in list(self.links):
            link.refuse() if for_good else link.raw.cut()
        for _, descriptor, inode in self._sockets:
            cut_socket(descriptor, inode)

    def drop_own(self) -> None:
        """Drop all connections except those with a caller's transaction."""
        self.give_back_lent()
        for link in self.links:
            if not link.belongs_to_caller:
                link.drop()

    def is_test_due(self, raw: Any) -> bool:
        """Whether to test a connection that a pool lends: in a unit of work. A cut ends it."""
        if not self.in_unit:
            return False
        self.register_socket(raw)
        refusals.check()
        return True

    def give_back_lent(self) -> None:
        """Return a connection to its pool, if an interruption kept it from its wrapper."""
        if self.lent is not None:
            from daemonkit.connections.lending import take_back

            take_back(self.lent, self.loan)
            self.lent = None

    def _clean(self, link: Link, wrapper: Wrapper) -> None:
        """Call Django's ``close_if_unusable_or_obsolete()``, which may raise on a dead handle."""
        if wrapper.connection is None:
            return
        if self.keeps_between_units and wrapper.settings_dict["CONN_MAX_AGE"] == 0:
            wrapper.close_at = None
        try:
            wrapper.close_if_unusable_or_obsolete()
            if link.raw.is_pooled and not link.raw.answered_lately():
                wrapper.close()  # the pool, not Django, validates a connection: when it lends it
        except Exception:
            link.drop()
        except BaseException:  # such as an exception from a signal handler
            link.drop()
            raise


class _Here(threading.local):
    thread: ThreadConnections | None = None
    end: AtThreadEnd | None = None


here = _Here()
_threads: weakref.WeakValueDictionary[int, ThreadConnections] = weakref.WeakValueDictionary()


def this_thread() -> ThreadConnections:
    thread = here.thread
    if thread is None:
        install()
        thread = here.thread = _threads[threading.get_ident()] = ThreadConnections()
        here.end = AtThreadEnd(thread.close_at_end)
        thread.adopt()
    return thread


def others(threads: set[int]) -> list[ThreadConnections]:
    """The connections of other threads (``threading.get_ident()``)."""
    found = (_threads.get(thread) for thread in threads)
    return [thread for thread in found if thread is not None]


def known_sockets() -> set[int]:
    """The inodes of the sockets of all threads' links."""
    return {link.raw.inode for thread in list(_threads.values()) for link in list(thread.links)}


def is_in_unit(ident: int) -> bool:
    """Whether another thread (``threading.get_ident()``) is in a unit of work."""
    thread = _threads.get(ident)
    return thread is not None and thread.in_unit


def install() -> None:
    """Observe every new connection. Called by ``AppConfig.ready()``. A second call does nothing."""
    connection_created.connect(_on_connection_created, dispatch_uid="daemonkit.connections.units")
    callproc.install()


def close(link: Link) -> None:
    wrapper = link.wrapper()
    try:
        if wrapper is not None:
            wrapper.close()
    except Exception:
        link.drop()


def _on_connection_created(connection: Wrapper, **_: Any) -> None:
    thread = this_thread()
    thread.connected(connection)
    try:
        refusals.check()  # after the link is made, so that a concurrent cut() finds it
    except OperationalError:
        thread.drop(connection)
        raise
    if (pool := pool_of(connection.connection)) is not None:
        from daemonkit.connections import lending

        if not lending.is_lent_alive(connection, pool, this_thread):
            thread.drop(connection)
            connection.connect()  # this sends connection_created again
