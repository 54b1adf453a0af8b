"""``wake()``: ends the wait of the daemons, in any process, that have ``wake_on`` with a name."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time

from django.db import connections

from daemonkit import conf
from daemonkit.connections.holding import close_all
from daemonkit.connections.private_session import DRIVER_SECONDS, PrivateSession
from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.errors import one_line
from daemonkit.waking import rows

logger = logging.getLogger("daemonkit")

SHORTEST_INTERVAL = 0.05
"""Seconds between two wake-ups of one name by one process."""

LONGEST_NAME = 200
"""Characters of a name."""

LONGEST_PAUSE = 10.0
"""Seconds between two tries while the database is away."""

LAST_SECONDS = 2.0
"""Seconds that the end of the process waits for wake-ups that are not sent yet."""


def wake(name: str) -> None:
    """Make a tick due now in every daemon with ``wake_on = name``, in whichever process it runs.

    Returns at once: a thread sends it, on a session of its own in autocommit. Inside ``atomic()``
    it is sent after the commit, and not at all after a rollback. It is sent at most once every 50
    ms for each name; the last one is always sent. While the database is away it is tried again;
    errors are logged. Raises ``ValueError`` if the name is not a text of 1 to 200 characters.
    """
    check_name(name)
    transactions = [each for each in connections.all(initialized_only=True) if each.in_atomic_block]
    for connection in transactions:
        connection.on_commit(functools.partial(_sender.put, name))
    if not transactions:
        _sender.put(name)


def check_name(name: object) -> None:
    """Raise ``ValueError`` if a name cannot be woken."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(f"wake() takes a name of 1 to {LONGEST_NAME} characters, not {name!r}")


class Sender:
    """The thread that sends the wake-ups of this process. It starts with the first one."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set the state of a new sender. A forked child does not send for its parent."""
        self._changed = threading.Condition()
        self._asked: dict[str, None] = {}  # in order, each once
        self._sent_at: dict[str, float] = {}
        self._is_sending = self._is_ending = False
        self._failures = 0
        self._thread: threading.Thread | None = None
        self._session: PrivateSession | None = None

    def put(self, name: str) -> None:
        with self._changed:
            self._asked[name] = None
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="daemonkit-wake", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def flush(self, within: float = LAST_SECONDS) -> None:
        """Send what is not sent yet, without the interval, and end the thread. The next ``put()``
        starts another one. Called at the end of the process."""
        with self._changed:
            self._is_ending, thread = True, self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(within)
        self._is_ending = False
        if self._session is not None:
            self._session.close(0.2)

    def _run(self) -> None:
        while name := self._next():
            error = self._send(name)
            with self._changed:
                self._is_sending = False
                self._failures = self._failures + 1 if error is not None else 0
                self._sent_at[name] = time.monotonic()
                if error is not None:
                    self._asked[name] = None
                self._changed.notify_all()

    def _next(self) -> str:
        """Wait for a name that may be sent now; "" when all are sent and the process ends."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = {name: self._due(name, now) for name in self._asked}
                name = min(due, key=due.__getitem__, default="")
                if name and due[name] <= now:
                    del self._asked[name]
                    self._is_sending = True
                    return name
                if not name and self._is_ending:
                    self._thread = None
                    return ""
                self._changed.wait(due[name] - now if name else None)

    def _due(self, name: str, now: float) -> float:
        sent_at = self._sent_at.get(name)
        if sent_at is None:
            return now
        if self._failures:
            pause = min(LONGEST_PAUSE, 0.1 * 2 ** min(self._failures, 20))
            return sent_at + (0.1 if self._is_ending else pause)
        return now if self._is_ending else sent_at + SHORTEST_INTERVAL

    def _send(self, name: str) -> Exception | None:
        """Send one wake-up. Returns the error of a try that must be repeated."""
        try:
            vendor = connections[alias := conf.database()].vendor
            if self._session is None:
                self._session = PrivateSession(alias, DRIVER_SECONDS, name="daemonkit wake")
            execute = functools.partial(self._session.execute, within=DRIVER_SECONDS)
            if vendor not in rows.VENDORS:
                logger.error("wake(%r) was not sent: %s cannot carry wake-ups", name, vendor)
                return None
            rows.count_one(execute, vendor, name)
        except Exception as error:
            return self._failed(name, error)
        if self._failures:
            logger.info("wake(%r) was sent", name)
        self._forget_old()
        return None

    def _failed(self, name: str, error: Exception) -> Exception | None:
        if _has_no_table():
            mend = how_to_migrate(conf.database())
            logger.error(
                "wake(%r) was not sent: there is no table %s; %s", name, rows.table(), mend
            )
            return None
        if not self._failures:
            logger.error("wake(%r) is tried again: %s", name, one_line(error))
        return error

    def _forget_old(self) -> None:
        with self._changed:
            until = time.monotonic() - SHORTEST_INTERVAL
            self._sent_at = {name: at for name, at in self._sent_at.items() if at > until}


def _has_no_table() -> bool:
    try:
        return is_table_missing(conf.database(), rows.table())
    except Exception:
        return False  # DAEMONKIT is wrong, or the database is away
    finally:
        close_all()


_sender = Sender()
atexit.register(lambda: _sender.flush())
os.register_at_fork(after_in_child=lambda: _sender.reset())
