"""End real database sessions, as a server does. No mocks are involved."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

from daemonkit.connections.session_thread import private_wrapper
from daemonkit.connections.wrappers import Wrapper, is_in_memory

_KILLER = "daemonkit-testing"
_ANSWER_SECONDS = 10.0

_wrappers: weakref.WeakSet[Wrapper] = weakref.WeakSet()


def _remember(connection: Wrapper, **_: Any) -> None:
    _wrappers.add(connection)


connection_created.connect(_remember, dispatch_uid="daemonkit.testing.sessions")


def wrappers_of(alias: str) -> list[Wrapper]:
    """Every connected wrapper of an alias in this process, on any thread; copies included."""
    for wrapper in connections.all(initialized_only=True):  # connected before this import
        if wrapper.connection is not None:
            _wrappers.add(wrapper)
    found = [wrapper for wrapper in list(_wrappers) if wrapper.alias == alias]
    return [wrapper for wrapper in found if wrapper.connection is not None]


def close_connections() -> None:
    """Close all connections of this thread, and the pools."""
    for wrapper in connections.all(initialized_only=True):
        wrapper.close()
        if close_pool := getattr(wrapper, "close_pool", None):
            close_pool()


def kill_all_sessions(alias: str) -> int:
    """End every session of this user on the database of an alias, including other processes'.

    Waits until they are gone, and returns their number. On SQLite it closes the driver's
    connections of this process. Raises ``RuntimeError`` if that is impossible; the message says
    what to do instead.
    """
    refuse_in_memory(alias)
    if connections[alias].vendor == "sqlite":
        victims = wrappers_of(alias)
        for wrapper in victims:
            wrapper.connection.close()
        return len(victims)
    with _killer(alias) as killer:
        victims = killer.sessions()
        for session in victims:
            killer.kill(session)
        killer.wait_until_gone(victims)
    return len(victims)


def kill_session(wrapper: Wrapper) -> None:
    """End the session of one connection, and wait until it is gone."""
    if wrapper.vendor == "sqlite":
        wrapper.connection.close()
        return
    with _killer(wrapper.alias) as killer:
        session = session_of(wrapper)
        killer.kill(session)
        killer.wait_until_gone([session])


def break_in_query(wrapper: Wrapper) -> None:
    """Lose a connection in the middle of a query. Raises the driver's error."""
    with wrapper.wrap_database_errors:
        if wrapper.vendor == "sqlite":
            _break_permanently(wrapper.connection)
        elif wrapper.vendor in _KILLERS:
            kind = _KILLERS[wrapper.vendor]
            kill = threading.Thread(target=_kill_when_asleep, args=(wrapper, session_of(wrapper)))
            kill.start()
            try:
                wrapper.connection.cursor().execute(kind.sleep)
            finally:
                kill.join()
    raise AssertionError(f"the session of {wrapper.alias!r} is still alive after it was killed")


def _break_permanently(raw: Any) -> None:
    """Make every statement on a SQLite connection fail, beginning with one here. The connection is
    not closed: then closing the cursor would also fail, and hide the statement's error."""
    raw.set_progress_handler(lambda: True, 1)
    raw.execute("SELECT count(*) FROM sqlite_master")


def session_of(wrapper: Wrapper) -> int:
    """The server's id of a connection's session."""
    raw: Any = wrapper.connection
    if hasattr(raw, "thread_id"):  # MySQLdb, PyMySQL
        return int(raw.thread_id())
    info: Any = getattr(raw, "info", None)
    return int(info.backend_pid if hasattr(info, "backend_pid") else raw.get_backend_pid())


def refuse_in_memory(alias: str) -> None:
    """Raise ``RuntimeError`` for a database that would end with its connection."""
    if is_in_memory(connections[alias]):
        raise RuntimeError(
            f"the database {alias!r} is in memory and would be lost with its connection: give it "
            f'a file, DATABASES[{alias!r}]["TEST"] = {{"NAME": BASE_DIR / "test.sqlite3"}}'
        )


class _Killer:
    """A session that kills other sessions, on one kind of server."""

    sleep: str
    """A statement that runs until it is killed."""
    ids: str
    """Selects the other sessions of this user on this database: id, and running statement."""
    end: str
    """Kills a session."""

    def __init__(self, wrapper: Wrapper) -> None:
        self._wrapper = wrapper

    def _rows(self) -> list[tuple[Any, ...]]:
        with self._wrapper.cursor() as cursor:
            cursor.execute(self.ids)
            return list(cursor.fetchall())

    def sessions(self) -> list[int]:
        return [int(row[0]) for row in self._rows()]

    def is_asleep(self, session: int) -> bool:
        rows = {int(row[0]): str(row[1] or "") for row in self._rows()}
        return rows.get(session, "").startswith(self.sleep)

    def kill(self, session: int) -> None:
        with contextlib.suppress(self._wrapper.Database.Error):  # it may have ended already
            with self._wrapper.connection.cursor() as cursor:
                cursor.execute(self.end, [session])

    def wait_until_gone(self, sessions: list[int]) -> None:
        _wait_until(
            lambda: not set(sessions) & set(self.sessions()), "the killed sessions are gone"
        )


class _MySQL(_Killer):
    sleep = "SELECT SLEEP(60)"
    ids = (
        "SELECT id, info FROM information_schema.processlist WHERE db = DATABASE() "
        "AND user = SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AND id <> CONNECTION_ID()"
    )
    end = "KILL CONNECTION %s"


class _PostgreSQL(_Killer):
    sleep = "SELECT pg_sleep(60)"
    ids = (
        "SELECT pid, CASE state WHEN 'active' THEN query END FROM pg_stat_activity "
        "WHERE datname = current_database() AND usename = current_user "
        "AND pid <> pg_backend_pid()"
    )
    end = "SELECT pg_terminate_backend(%s)"


_KILLERS: dict[str, type[_Killer]] = {"mysql": _MySQL, "postgresql": _PostgreSQL}


@contextlib.contextmanager
def _killer(alias: str) -> Iterator[_Killer]:
    wrapper = private_wrapper(alias, _ANSWER_SECONDS, _KILLER)
    if wrapper.vendor not in _KILLERS:
        raise RuntimeError(f"daemonkit.testing cannot end sessions of {wrapper.vendor}")
    wrapper.ensure_connection()
    try:
        yield _KILLERS[wrapper.vendor](wrapper)
    finally:
        wrapper.close()


def _kill_when_asleep(wrapper: Wrapper, session: int) -> None:
    with _killer(wrapper.alias) as killer:
        _wait_until(lambda: killer.is_asleep(session), "the session sleeps")
        killer.kill(session)


def _wait_until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {_ANSWER_SECONDS:g} s: {what}")
        time.sleep(0.002)
