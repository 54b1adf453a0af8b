"""Two ways to hear wake-ups: a counter that is looked at, and PostgreSQL's LISTEN."""

from __future__ import annotations

import functools
import select
from collections.abc import Iterator
from typing import Any, Protocol

from daemonkit import conf
from daemonkit.connections.private_session import DRIVER_SECONDS, PrivateSession
from daemonkit.connections.session_thread import private_wrapper
from daemonkit.connections.sockets import cut_socket, descriptor_of
from daemonkit.process.stopping import milliseconds
from daemonkit.waking import rows

LOOK_INTERVAL = 0.5
"""Seconds between two looks at a counter, where nothing else tells of wake-ups."""


class Ear(Protocol):
    """Where wake-ups of one name are heard. One thread calls its methods, except ``cut()``."""

    interval: float
    """Seconds between two looks at the counter."""

    def open(self) -> None: ...
    def times(self) -> int:
        """How often the name has been woken, by the counter."""

    def wait(self, seconds: float, ended: int) -> int:
        """Wait for wake-ups, or until the descriptor ``ended`` is readable. Returns how many were
        heard."""

    def cut(self) -> None:
        """End a request that the server does not answer. From another thread."""

    def close(self) -> None: ...


class Counter:
    """The counter alone."""

    interval = LOOK_INTERVAL

    def __init__(self, daemon: str, name: str) -> None:
        self._name = name
        self._session = PrivateSession(conf.database(), DRIVER_SECONDS, name=f"daemonkit {daemon}")

    def open(self) -> None:
        """Do nothing: the first look opens the session."""

    def times(self) -> int:
        execute = functools.partial(self._session.execute, within=DRIVER_SECONDS)
        return rows.read(execute, self._name)

    def wait(self, seconds: float, ended: int) -> int:
        _readable(seconds, ended)
        return 0

    def cut(self) -> None:
        """Do nothing: each request has a time limit."""

    def close(self) -> None:
        self._session.close(0.2)


class Listening:
    """A session of PostgreSQL under LISTEN. The counter is looked at with each pulse, too.

    A pooler such as pgbouncer may accept LISTEN and never pass a notice on. And a look fails when
    the session is gone without a word.
    """

    def __init__(self, daemon: str, name: str, pulse: float) -> None:
        self._application, self._name = f"daemonkit {daemon}", name
        self.interval = pulse
        self._wrapper: Any = None
        self._descriptor: tuple[int | None, int] = (None, 0)
        self._heard = 0

    def open(self) -> None:
        self._wrapper = wrapper = private_wrapper(conf.listen(), DRIVER_SECONDS, self._application)
        wrapper.connect()
        self._descriptor = descriptor_of(wrapper.connection)
        if hasattr(wrapper.connection, "add_notify_handler"):  # for notices that come with a row
            wrapper.connection.add_notify_handler(self._note)
        self._execute(f"LISTEN {rows.CHANNEL}", None)

    def times(self) -> int:
        return rows.read(self._execute, self._name)

    def _execute(self, sql: str, params: Any) -> tuple[int, list[tuple[Any, ...]]]:
        with self._wrapper.cursor() as cursor:
            cursor.execute(sql, params)
            found = list(cursor.fetchall()) if cursor.description else []
        self._wrapper.queries_log.clear()
        return len(found), found

    def wait(self, seconds: float, ended: int) -> int:
        descriptor = self._descriptor[0]
        waits = not self._heard and descriptor is not None
        if waits and descriptor in _readable(seconds, descriptor or 0, ended):
            names = list(_notices(self._wrapper.connection))
            self._heard += names.count(self._name)
        heard, self._heard = self._heard, 0
        return heard

    def _note(self, notice: Any) -> None:
        self._heard += notice.channel == rows.CHANNEL and notice.payload == self._name

    def cut(self) -> None:
        cut_socket(*self._descriptor)

    def close(self) -> None:
        wrapper, self._wrapper = self._wrapper, None
        descriptor, self._descriptor = self._descriptor, (None, 0)
        self._heard = 0
        cut_socket(*descriptor)  # the server may not answer
        if wrapper is not None:
            wrapper.close()


def _readable(seconds: float, *descriptors: int) -> set[int]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(milliseconds(seconds))}


def _notices(raw: Any) -> Iterator[str]:
    """The names in the notices that have arrived. Raises the driver's error for a lost session."""
    if not hasattr(raw, "pgconn"):  # psycopg2
        raw.poll()
        while raw.notifies:
            notice = raw.notifies.pop(0)
            if notice.channel == rows.CHANNEL:
                yield notice.payload
        return
    raw.pgconn.consume_input()
    while (notice := raw.pgconn.notifies()) is not None:
        if notice.relname.decode() == rows.CHANNEL:
            yield notice.extra.decode()
