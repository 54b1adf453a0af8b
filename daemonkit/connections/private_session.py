"""A database session of daemonkit's own, on which every request has a deadline.

No unit of work cleans it and no pool lends it. Each request is one statement in autocommit or one
small transaction, so it works behind pgbouncer in transaction mode.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import queue
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

from django.db import OperationalError, connections

from daemonkit import conf
from daemonkit.connections.sockets import cut_socket, descriptor_of
from daemonkit.connections.wrappers import Wrapper

Result = TypeVar("Result")
Answer: TypeAlias = tuple[int, list[tuple[Any, ...]]]

IDLE_SECONDS = 60.0
"""A session that nobody has used for so long is closed. The next request opens a new one."""

DRIVER_SECONDS = 5.0
"""After so long the driver itself gives up: a thread that was left behind ends."""

MAX_STUCK_THREADS = 3
"""How many threads may hang in a driver's ``connect()``, which nobody can cut, at one time."""


MAX_NAME_LENGTH = 63
"""Of an ``application_name``, in characters: PostgreSQL cuts longer ones, and says so each time."""


class NoAnswer(OperationalError):
    """The database did not answer in time. Whether the request took effect is unknown."""

    sqlstate = "08006"  # connection_failure: what daemonkit.errors classifies as a lost connection


class PrivateSession:
    """One session with the database of an alias. It is opened when it is first needed.

    No driver can be trusted to answer in time. So a thread of the session's own talks to the
    server, and the caller waits for that thread. A thread that is late has its socket cut and is
    left behind; the next request gets a new thread and a new session.

    ``seconds`` is the time after which the driver itself gives up, so that a thread which was left
    behind ends. ``name`` is what the server shows as the session's application. Any thread may
    call the methods. In a forked child the session is a new one.
    """

    def __init__(
        self, alias: str, seconds: float, *, name: str = "", idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._alias, self._seconds, self._name = alias, seconds, name
        self._idle_seconds = idle_seconds
        self.reset()
        _sessions.add(self)

    def reset(self) -> None:
        """Forget the session and its threads. For a forked child, which has neither."""
        self._turns = _Turns()
        self._thread: _SessionThread | None = None
        self._late: list[_SessionThread] = []

    def execute(
        self, sql: str, params: Sequence[Any], within: float, *, urgent: bool = False
    ) -> Answer:
        """Run one statement in autocommit. Return the number of rows it found, and its rows.

        For ``within``, ``urgent`` and errors see ``run()``.
        """
        work = functools.partial(_execute, self._alias, sql, params)
        return self.run(work, within, urgent=urgent)

    def run(self, work: Callable[[], Result], within: float, *, urgent: bool = False) -> Result:
        """Return ``work()``. It is called on the session's thread.

        On that thread ``connections[alias]`` is the session's wrapper, so ``work`` may use the ORM
        with ``using(alias)``. Urgent requests are served before the others that wait.

        Raises what ``work`` raises, and ``NoAnswer`` if there is no result ``within`` so many
        seconds. After an error the next request has a new session.
        """
        deadline = time.monotonic() + within
        with self._turns.turn(within, urgent=urgent):
            thread = self._thread or self._start_thread()
            try:
                return thread.submit(work).result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                thread.abandon()
                self._late.append(thread)
                self._thread = None
                raise NoAnswer(f"no answer from the database in {within:.2g} s") from None

    @property
    def is_in_use(self) -> bool:
        return self._turns.is_taken

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return self._turns.waiting

    def close(self, within: float = 1.0) -> None:
        """End the session: by the driver's own good-bye if that takes no longer than ``within``
        seconds. The next request opens a new one."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.finish()
            thread.join(within)
            thread.abandon()

    def _start_thread(self) -> _SessionThread:
        self._late = [thread for thread in self._late if thread.is_alive()]
        if len(self._late) >= MAX_STUCK_THREADS:
            raise NoAnswer("the database accepts connections and does not answer")
        make_wrapper = functools.partial(private_wrapper, self._alias, self._seconds, self._name)
        self._thread = thread = _SessionThread(make_wrapper, self._idle_seconds)
        thread.start()
        return thread


class PrivateSessions:
    """The two sessions that a daemon's process may have of its own, each made when first used.

    ``claims`` is for what must not wait: the lease and claims. ``ledger`` is for all other rows: a
    slow write there delays no renewal. ``claim_seconds`` is the driver's time limit for claims.
    """

    def __init__(self, daemon: str, claim_seconds: float | None = None) -> None:
        self._name = f"daemonkit {daemon}"
        self._claim_seconds = claim_seconds or DRIVER_SECONDS

    @functools.cached_property
    def claims(self) -> PrivateSession:
        return PrivateSession(conf.database(), self._claim_seconds, name=self._name)

    @functools.cached_property
    def ledger(self) -> PrivateSession:
        return PrivateSession(conf.database(), DRIVER_SECONDS, name=self._name)

    def close(self) -> None:
        """End both. A request after that opens its session again."""
        for name in ("claims", "ledger"):
            if name in vars(self):
                getattr(self, name).close()


class _Turns:
    """Who may use a session next. The urgent go first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.is_taken = False
        self.waiting = self._urgent_waiting = 0

    @contextlib.contextmanager
    def turn(self, within: float, *, urgent: bool) -> Iterator[None]:
        """Raises ``NoAnswer`` if it is not our turn within so many seconds."""
        if not self._take(within, urgent=urgent):
            raise NoAnswer(f"daemonkit's session was not free within {within:.2g} s")
        try:
            yield
        finally:
            with self._changed:
                self.is_taken = False
                self._changed.notify_all()

    def _take(self, within: float, *, urgent: bool) -> bool:
        with self._changed:
            self.waiting += 1
            self._urgent_waiting += urgent
            is_ours = self._changed.wait_for(lambda: self._is_free(urgent=urgent), within)
            self.waiting -= 1
            self._urgent_waiting -= urgent
            self.is_taken = self.is_taken or is_ours
            return is_ours

    def _is_free(self, *, urgent: bool) -> bool:
        return not self.is_taken and (urgent or not self._urgent_waiting)


_Request: TypeAlias = "tuple[Callable[[], Any], Future[Any]]"


class _SessionThread(threading.Thread):
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
        """Have the thread close its session and end."""
        self._requests.put(None)

    def abandon(self) -> None:
        """Cut the session. The thread ends as soon as it returns from the driver."""
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
        if self._wrapper is not None and _has_hung_up(self._descriptor[0]):
            self._disconnect(cut=True)
        if self._wrapper is None:
            self._wrapper = wrapper = self._make_wrapper()
            wrapper.connect()
            self._descriptor = descriptor_of(wrapper.connection)
            connections[wrapper.alias] = wrapper
        if self._is_abandoned:
            raise NoAnswer("the connection was made too late")

    def _disconnect(self, *, cut: bool = False) -> None:
        """Close the session. ``cut``: without waiting for a server that may not answer."""
        wrapper, self._wrapper = self._wrapper, None
        descriptor, self._descriptor = self._descriptor, (None, 0)
        if cut:
            cut_socket(*descriptor)
        if wrapper is not None:
            wrapper.in_atomic_block = False  # or close() would keep a part of its state
            with contextlib.suppress(Exception):
                wrapper.close()


def _execute(alias: str, sql: str, params: Sequence[Any]) -> Answer:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        rows = list(cursor.fetchall()) if cursor.description else []
        return cursor.rowcount, rows


def _has_hung_up(descriptor: int | None) -> bool:
    """Whether the server has closed an idle session. It has sent us nothing else."""
    if descriptor is None:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def private_wrapper(alias: str, seconds: float, name: str = "") -> Wrapper:
    """A wrapper of the alias's own class: without a pool, in autocommit, never closed for its age,
    with a driver that gives up after so many seconds, and named ``name`` where drivers allow it."""
    users: Wrapper = connections[alias]
    options = dict(users.settings_dict["OPTIONS"])
    options.pop("pool", None)
    for option, least, unit in _DRIVER_LIMITS.get(users.vendor, ()):
        ours = max(least, math.ceil(seconds * unit))
        options[option] = min(ours, int(options.get(option) or ours))
    if name and (option := _name_option(users)):
        options[option] = name[:MAX_NAME_LENGTH]
    changes = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False, "AUTOCOMMIT": True}
    return type(users)({**users.settings_dict, **changes, "OPTIONS": options}, alias)


def _name_option(wrapper: Wrapper) -> str:
    """The driver's option for the name of an application; "" for mysqlclient, which has none."""
    if wrapper.vendor == "postgresql":
        return "application_name"
    return "program_name" if wrapper.Database.__name__ == "pymysql" else ""


_DRIVER_LIMITS = {
    "mysql": [("connect_timeout", 1, 1), ("read_timeout", 1, 1), ("write_timeout", 1, 1)],
    "postgresql": [("connect_timeout", 2, 1), ("tcp_user_timeout", 1000, 1000)],
}
"""The options that let an abandoned thread end: name, least value, units in a second."""

_sessions: weakref.WeakSet[PrivateSession] = weakref.WeakSet()


def _reset_in_child() -> None:
    for session in list(_sessions):
        session.reset()


os.register_at_fork(after_in_child=_reset_in_child)
