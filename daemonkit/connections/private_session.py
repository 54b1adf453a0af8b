"""A database session of our own, outside of Django's connections, whose every answer is in time.

No unit of work cleans it, no pool lends it, and each of its statements is a transaction, so that
it does not matter on which session of pgbouncer's a statement arrives.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from django.db import OperationalError, connections

from daemonkit.connections.link import Wrapper, cut_socket, descriptor_of

Answer: TypeAlias = tuple[int, list[tuple[Any, ...]]]

_STUCK = 3
"""How many threads may hang in a driver's ``connect()``, which nobody can cut, at one time."""


class PrivateSession:
    """One session with the database of an alias, opened when it is first asked for.

    No driver can be trusted to answer in time: so a thread speaks to it, and who asks waits for
    the thread. One that is late has its socket cut and is left behind.
    """

    def __init__(self, alias: str, seconds: float) -> None:
        self._alias, self._seconds = alias, seconds
        self._speaker: _Speaker | None = None
        self._late: list[_Speaker] = []

    def execute(self, sql: str, params: Sequence[Any], within: float) -> Answer:
        """Run one statement in autocommit: the number of rows it found, and its rows.

        Raises what Django raises, and ``OperationalError`` when there is no answer ``within`` so
        many seconds; whether it took effect is then unknown. The next one has a new session.
        """
        speaker = self._speaker or self._new_speaker()
        answer = speaker.ask(sql, params)
        try:
            return answer.result(max(0.0, within))
        except TimeoutError:
            speaker.leave()
            self._late.append(speaker)
            self._speaker = None
            raise OperationalError(f"no answer from the database in {within:.2g} s") from None

    def close(self, within: float = 1.0) -> None:
        """End the session, cleanly if that is done within so many seconds."""
        speaker, self._speaker = self._speaker, None
        if speaker is not None:
            speaker.say_goodbye()
            speaker.join(within)
            speaker.leave()

    def _new_speaker(self) -> _Speaker:
        self._late = [speaker for speaker in self._late if speaker.is_alive()]
        if len(self._late) >= _STUCK:
            raise OperationalError("the database takes connections and does not answer")
        self._speaker = _Speaker(self._alias, self._seconds)
        self._speaker.start()
        return self._speaker


class _Speaker(threading.Thread):
    """The thread that speaks to the server, and may hang in the driver."""

    def __init__(self, alias: str, seconds: float) -> None:
        super().__init__(name="daemonkit-lease", daemon=True)
        self._alias, self._seconds = alias, seconds
        self._asked: queue.Queue[tuple[str, Sequence[Any], Future[Answer]] | None] = queue.Queue()
        self._left = False
        self._wrapper: Wrapper = None
        self._descriptor: tuple[int | None, int] = (None, 0)

    def ask(self, sql: str, params: Sequence[Any]) -> Future[Answer]:
        answer: Future[Answer] = Future()
        self._asked.put((sql, params, answer))
        return answer

    def say_goodbye(self) -> None:
        self._asked.put(None)

    def leave(self) -> None:
        """Cut it, and have it end when it comes back from the driver."""
        self._left = True
        self._asked.put(None)
        cut_socket(*self._descriptor)

    def run(self) -> None:
        try:
            while (asked := self._asked.get()) is not None and not self._left:
                sql, params, answer = asked
                try:
                    found = self._answer(sql, params)
                except BaseException as error:
                    self._drop()
                    answer.set_exception(error)
                else:
                    answer.set_result(found)
        finally:
            self._drop()

    def _answer(self, sql: str, params: Sequence[Any]) -> Answer:
        if self._wrapper is None or self._wrapper.connection is None:
            self._connect()
        with self._wrapper.cursor() as cursor:
            cursor.execute(sql, params)
            rows = list(cursor.fetchall()) if cursor.description else []
            found = cursor.rowcount
        self._wrapper.queries_log.clear()
        return found, rows

    def _connect(self) -> None:
        if self._wrapper is None:
            self._wrapper = own_wrapper(self._alias, self._seconds)
        self._wrapper.connect()
        self._descriptor = descriptor_of(self._wrapper.connection)
        if self._left:
            raise OperationalError("too late")

    def _drop(self) -> None:
        wrapper = self._wrapper
        if wrapper is not None and wrapper.connection is not None:
            if self._left:
                cut_socket(*self._descriptor)
            self._descriptor = (None, 0)
            raw, wrapper.connection = wrapper.connection, None
            with contextlib.suppress(Exception):
                raw.close()


def own_wrapper(alias: str, seconds: float) -> Wrapper:
    """A wrapper of the alias's own class, outside of ``connections``: without a pool, in
    autocommit, never closed for its age, its driver told to give up after so many seconds."""
    users: Wrapper = connections[alias]
    options = dict(users.settings_dict["OPTIONS"])
    options.pop("pool", None)
    for name, least, unit in _DRIVERS_LIMITS.get(users.vendor, ()):
        ours = max(least, math.ceil(seconds * unit))
        options[name] = min(ours, int(options.get(name) or ours))
    changes = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False, "AUTOCOMMIT": True}
    return type(users)({**users.settings_dict, **changes, "OPTIONS": options}, alias)


_DRIVERS_LIMITS = {
    "mysql": [("connect_timeout", 1, 1), ("read_timeout", 1, 1), ("write_timeout", 1, 1)],
    "postgresql": [("connect_timeout", 2, 1), ("tcp_user_timeout", 1000, 1000)],
}
"""The options that let a thread which was left behind end: their least values, and their unit."""
