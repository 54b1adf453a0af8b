"""What one thread holds: its links, and how deep it is in units of work.

This is where connections are cleaned, dropped, closed and cut; ``connections.py`` has the doors.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Any

from django.db import Error, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from daemonkit.connections import lending
from daemonkit.connections.cache_closing import close_caches
from daemonkit.connections.link import Link
from daemonkit.connections.pauses import WORTH_A_LOOK, warn_of_pause
from daemonkit.connections.sockets import cut_socket, descriptor_of
from daemonkit.connections.wrappers import Wrapper, is_in_transaction
from daemonkit.errors import chain, one_line

logger = logging.getLogger(__name__)


class ThreadConnections:
    """One thread's links, and how deep it is in units of work."""

    def __init__(self) -> None:
        self.depth = 0
        self.began = 0.0
        self.keeps = False
        self.overlapped: BaseException | None = None
        self.links: list[Link] = []
        self._sockets: list[tuple[weakref.ref[Any], int, int]] = []

    def begin(self) -> None:
        """Before the outermost unit of work: clean by Django's rules, and distrust what is kept."""
        self.began = now = time.monotonic()
        for link in self.links:
            wrapper = link.wrapper()
            if wrapper is None:
                continue
            link.pause = 0.0
            if not link.is_calm(wrapper, now, keeps=self.keeps):
                link.callers = is_in_transaction(wrapper)
                if link.callers or wrapper.connection is None:
                    continue
                self._clean(link, wrapper)
            link.callers = False
            if wrapper.queries_log and not wrapper.force_debug_cursor:
                wrapper.queries_log.clear()
            wrapper.health_check_enabled, wrapper.health_check_done = True, False

    def end(self, error: BaseException | None) -> None:
        """After the outermost unit of work: drop what is in doubt, keep the rest as Django says."""
        if error is not None:
            self.adopt()  # a connection that broke while it was being made announced itself nowhere
        now = time.monotonic()
        for link in self.links:
            wrapper = link.wrapper()
            if wrapper is None or link.callers:
                continue
            pause = link.longest_pause(wrapper, now) if now - self.began > WORTH_A_LOOK else 0.0
            if error is not None or not link.is_calm(wrapper, now, keeps=self.keeps):
                self._settle(link, wrapper, error)
            if pause > WORTH_A_LOOK:
                warn_of_pause(wrapper, pause, link.site)
            wrapper.health_check_enabled = wrapper.settings_dict["CONN_HEALTH_CHECKS"]
        close_caches()

    def _settle(self, link: Link, wrapper: Wrapper, error: BaseException | None) -> None:
        why = _doubt(link, wrapper, error)
        if why is not None:
            link.drop()
            logger.warning("connection %r dropped: the unit of work %s", wrapper.alias, why)
        elif wrapper.connection is not None:
            self._clean(link, wrapper)

    def distrust(self) -> None:
        """Have every connection validated before its next query, in the middle of a unit."""
        for link in self.links:
            wrapper = link.wrapper()
            if wrapper is not None and not is_in_transaction(wrapper):
                wrapper.health_check_enabled, wrapper.health_check_done = True, False

    def adopt(self) -> None:
        """Link every open connection of this thread's ``connections`` that has no link yet."""
        for wrapper in connections.all(initialized_only=True):
            if wrapper.connection is not None and self._is_new(wrapper):
                self._link(wrapper)

    def connected(self, wrapper: Wrapper) -> None:
        """Hear that a wrapper has connected.

        It is cared for if it is ``connections[alias]`` now, and then until it is closed. Another
        one is its maker's own: it may hold a lock or LISTEN, so no unit of work touches it.
        """
        for link in self.links:
            if link.wrapper() is wrapper:
                link.connected()
                return
        is_djangos = any(wrapper is each for each in connections.all(initialized_only=True))
        if not is_djangos:
            self.mind_socket(wrapper.connection)
        elif self._is_new(wrapper):
            self._link(wrapper)

    def _is_new(self, wrapper: Wrapper) -> bool:
        if wrapper._thread_ident != threading.get_ident():
            return False  # lent by another thread, which cleans it
        return not any(link.wrapper() is wrapper for link in self.links)

    def _link(self, wrapper: Wrapper) -> None:
        self.links = [link for link in self.links if link.wrapper() is not None]
        self.links.append(Link(wrapper, self))

    def mind_socket(self, raw: Any) -> None:
        """Have ``cut_sockets()`` reach a driver's connection that no link stands for."""
        descriptor, inode = descriptor_of(raw)
        if descriptor is not None:
            alive = [each for each in self._sockets if each[0]() is not None]
            self._sockets = [*alive, (weakref.ref(raw), descriptor, inode)]

    def cut_sockets(self) -> None:
        """Cut the sessions that no link stands for. Any thread may call this."""
        for _, descriptor, inode in self._sockets:
            cut_socket(descriptor, inode)

    def _clean(self, link: Link, wrapper: Wrapper) -> None:
        """Django's ``close_if_unusable_or_obsolete``, which may itself raise on a dead handle."""
        if self.keeps and wrapper.settings_dict["CONN_MAX_AGE"] == 0:
            wrapper.close_at = None
        try:
            wrapper.close_if_unusable_or_obsolete()
            if link.pooled and not link.answered_lately():
                wrapper.close()  # the pool validates a connection when it hands it out, not Django
        except Exception:
            link.drop()


class _Here(threading.local):
    thread: ThreadConnections | None = None


here = _Here()
_threads: weakref.WeakValueDictionary[int, ThreadConnections] = weakref.WeakValueDictionary()
_refused: set[int] = set()
_suspended: dict[int, str] = {}


def this_thread() -> ThreadConnections:
    thread = here.thread
    if thread is None:
        install()
        thread = here.thread = _threads[threading.get_ident()] = ThreadConnections()
        thread.adopt()
    return thread


def cut_connections(threads: set[int], *, for_good: bool) -> None:
    """Cut the database sessions of these threads (``threading.get_ident()``) from outside.

    ``for_good``: until the process ends these threads send no statement and connect no more. A
    statement or COMMIT that is on the wire has an unknown outcome.
    """
    if for_good:
        _refused.update(threads)
        setattr(BaseDatabaseWrapper, "connect", _refusing_connect)  # noqa: B010  mypy refuses it plain
    for ident in threads:
        thread = _threads.get(ident)
        if thread is None:
            continue
        for link in list(thread.links):
            link.refuse() if for_good else link.cut()
        thread.cut_sockets()


def suspend_connections(threads: set[int], why: str) -> None:
    """Cut the sessions of these threads, and let them make none until ``resume_connections()``:
    each try raises ``OperationalError`` and says why."""
    _suspended.update(dict.fromkeys(threads, why))
    cut_connections(threads, for_good=False)


def resume_connections(thread: int) -> None:
    _suspended.pop(thread, None)


def install() -> None:
    """Hear of every connection that is made. Called by ``AppConfig.ready()``; twice is once."""
    connection_created.connect(_on_connection_created, dispatch_uid="daemonkit.connections.units")


def _doubt(link: Link, wrapper: Wrapper, error: BaseException | None) -> str | None:
    """Why a connection cannot be kept after a unit of work, or None if it can."""
    if error is not None and wrapper.connection is not None and link.was_used(wrapper):
        if not isinstance(error, Exception):
            return f"was interrupted by {type(error).__name__}"
        kinds = (Error, wrapper.Database.Error)  # some errors reach us in the driver's own class
        if any(isinstance(behind, kinds) for behind in chain(error)):
            return f"ended in {one_line(error)}"
    try:
        return link.left_open()
    except Exception as trouble:
        return f"left it in an unknown state ({type(trouble).__name__})"


def close(link: Link) -> None:
    wrapper = link.wrapper()
    try:
        if wrapper is not None:
            wrapper.close()
    except Exception:
        link.drop()


def _on_connection_created(connection: Wrapper, **_: Any) -> None:
    if threading.get_ident() in _refused:
        connection.connection, raw = None, connection.connection
        raw.close()
        _refusing_connect(connection)
    thread = this_thread()
    thread.connected(connection)
    if why := _suspended.get(threading.get_ident()):  # asked last: a link that stands is cut
        _turn_away(connection)
        raise OperationalError(why)
    if (pool := lending.pool_of(connection.connection)) is not None:
        _have_tested(connection, pool)


def _turn_away(wrapper: Wrapper) -> None:
    wrapper.connection, raw = None, wrapper.connection
    if (pool := lending.pool_of(raw)) is not None:
        lending.take_back(pool, raw)
    else:
        raw.close()


def _have_tested(wrapper: Wrapper, pool: lending.Pool) -> None:
    """From now on a pool tests what it lends to units of work. This one it did not."""
    is_first = lending.test_before_lending(pool, _is_test_due)
    if is_first and this_thread().depth and not lending.is_alive(pool, wrapper.connection):
        _turn_away(wrapper)
        wrapper.connect()  # which is announced to all


def _is_test_due(raw: Any) -> bool:
    """Whether this thread is in a unit of work. The test can then be cut, as the work can."""
    thread = this_thread()
    if not thread.depth:
        return False
    thread.mind_socket(raw)
    if why := _suspended.get(threading.get_ident()):
        raise OperationalError(why)
    return True


_connect = BaseDatabaseWrapper.connect


def _refusing_connect(wrapper: Wrapper) -> None:
    if threading.get_ident() in _refused:
        raise OperationalError("daemonkit makes no new connection: the process is being stopped")
    _connect(wrapper)
