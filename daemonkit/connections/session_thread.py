"""The thread behind a private session: it talks to the server, and may hang in the driver."""

from __future__ import annotations

import contextlib
import math
import queue
import select
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

from django.db import OperationalError, connections

from daemonkit.connections.sockets import cut_socket, descriptor_of
from daemonkit.connections.wrappers import Wrapper

Result = TypeVar("Result")

MAX_NAME_LENGTH = 63
"""Characters of an ``application_name``. PostgreSQL cuts longer ones, with a notice each time."""


class NoAnswer(OperationalError):
    """The database did not answer in time. Whether the request took effect is unknown."""

    sqlstate = "08006"  # connection_failure: what daemonkit.errors classifies as a lost connection


_Request: TypeAlias = "tuple[Callable[[], Any], Future[Any]]"


class SessionThread(threading.Thread):
    """The thread that talks to the server. It may hang in the driver."""

    def __init__(self, make_wrapper: Callable[[], Wrapper], idle_seconds: float) -> None:
        super().__init__(name="daemonkit-session", daemon=True)
        self._make_wrapper, self._idle_seconds = make_wrapper, idle_seconds
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._is_abandoned = False
        self._wrapper: Wrapper = None
        self._descriptor: tuple[int | None, int] = (None, 0)

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        self._requests.put((work, future))
        return future

    def finish(self) -> None:
        """Make the thread close its session and end."""
        self._requests.put(None)

    def abandon(self) -> None:
        """Cut the session. The thread ends when it returns from the driver."""
        self._is_abandoned = True
        self._requests.put(None)
        cut_socket(*self._descriptor)

    def run(self) -> None:
        try:
            while (request := self._next_request()) is not None and not self._is_abandoned:
                self._serve(*request)
                del request
        finally:
            self._disconnect(cut=self._is_abandoned)

    def _next_request(self) -> _Request | None:
        with contextlib.suppress(queue.Empty):
            return self._requests.get(timeout=self._idle_seconds)
        self._disconnect()
        return self._requests.get()

    def _serve(self, work: Callable[[], Any], future: Future[Any]) -> None:
        try:
            self._connect()
            result = work()
            self._wrapper.queries_log.clear()
        except BaseException as error:
            self._disconnect(cut=True)
            future.set_exception(error)
        else:
            future.set_result(result)

    def _connect(self) -> None:
        if self._wrapper is not None and _was_closed_by_server(self._descriptor[0]):
            self._disconnect(cut=True)
        if self._wrapper is None:
            self._wrapper = wrapper = self._make_wrapper()
            wrapper.connect()
            self._descriptor = descriptor_of(wrapper.connection)
            connections[wrapper.alias] = wrapper
        if self._is_abandoned:
            raise NoAnswer("the connection was made too late")

    def _disconnect(self, *, cut: bool = False) -> None:
        """Close the session. With ``cut``, do not wait for a server that may not answer."""
        wrapper, self._wrapper = self._wrapper, None
        descriptor, self._descriptor = self._descriptor, (None, 0)
        if cut:
            cut_socket(*descriptor)
        if wrapper is not None:
            wrapper.in_atomic_block = False  # otherwise close() would keep some of its state
            with contextlib.suppress(Exception):
                wrapper.close()
                if wrapper.connection is not None:  # Django leaves SQLite in memory open
                    wrapper.connection.close()


def _was_closed_by_server(descriptor: int | None) -> bool:
    """Whether the server has closed an idle session: it sends nothing else to one."""
    if descriptor is None:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def private_wrapper(alias: str, seconds: float, name: str = "") -> Wrapper:
    """Make a private wrapper of the same class as the alias's.

    It has no pool, is in autocommit and has no maximum age. ``seconds`` is the driver's time limit,
    ``name`` the application's name, for drivers that have such an option.
    """
    original: Wrapper = connections[alias]
    options = dict(original.settings_dict["OPTIONS"])
    options.pop("pool", None)
    for option, minimum, unit in _DRIVER_LIMITS.get(original.vendor, ()):
        limit = max(minimum, math.ceil(seconds * unit))
        options[option] = min(limit, int(options.get(option) or limit))
    if name and (option := _name_option(original)):
        options[option] = name[:MAX_NAME_LENGTH]
    changes = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False, "AUTOCOMMIT": True}
    return type(original)({**original.settings_dict, **changes, "OPTIONS": options}, alias)


def _name_option(wrapper: Wrapper) -> str:
    """The driver's option for the name of an application; "" for mysqlclient, which has none."""
    if wrapper.vendor == "postgresql":
        return "application_name"
    return "program_name" if wrapper.Database.__name__ == "pymysql" else ""


_DRIVER_LIMITS = {
    "mysql": [("connect_timeout", 1, 1), ("read_timeout", 1, 1), ("write_timeout", 1, 1)],
    "postgresql": [("connect_timeout", 2, 1), ("tcp_user_timeout", 1000, 1000)],
}
"""The drivers' time limits, which end an abandoned thread: option, least value, units per second.
"""
