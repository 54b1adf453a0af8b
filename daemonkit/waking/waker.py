"""Wakes a daemon's loop when other processes wake the name in its ``wake_on``."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from django.core.management.base import CommandError
from django.db import Error, connections

from daemonkit import conf
from daemonkit.clock import Clock
from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.daemon import Daemon
from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.process.stopping import close_pipe, pipe
from daemonkit.waking import rows
from daemonkit.waking.ears import Counter, Ear, Listening
from daemonkit.waking.sender import check_name

logger = logging.getLogger("daemonkit")

LONGEST_PAUSE = 5.0
"""Seconds between two tries to reach a database that is away."""

LAST_SECONDS = 1.0
"""Seconds that an ending life waits for the thread."""


class Woken(Protocol):
    """The life that is woken."""

    def bring_forward(self, *, patient: bool = False) -> None: ...


class Waker:
    """Hears the wake-ups of one name for one life.

    Raises ``CommandError`` (exit code 2) for a name, or a database, that cannot be woken.
    """

    def __init__(self, daemon: Daemon, name: str, pulse: float, clock: Clock) -> None:
        self._daemon, self._name, self._clock = daemon.name, name, clock
        _refuse_what_cannot_wake(daemon.name, name)
        self._ear: Ear = Counter(daemon.name, name)
        if connections[conf.database()].vendor == "postgresql" and type(clock) is Clock:
            self._ear = Listening(daemon.name, name, pulse)
        self._times = 0
        self._failures = 0

    def begin(self) -> None:
        """Note how often the name has been woken so far: the first tick answers those wake-ups.

        Raises ``CommandError`` (exit code 78) if the table is missing.
        """
        counter = Counter(self._daemon, self._name)
        try:
            self._times = counter.times()
        except Error as error:
            alias = conf.database()
            if not is_table_missing(alias, rows.table()):
                raise
            raise CommandError(
                f"{self._daemon} has wake_on and needs the table {rows.table()}: "
                f"{how_to_migrate(alias)} ({one_line(error)})",
                returncode=Exit.MISCONFIGURED,
            ) from error
        finally:
            counter.close()

    @contextlib.contextmanager
    def waking(self, life: Woken) -> Iterator[None]:
        """Wake the life during the block."""
        self._life = life
        if self._clock.call_regularly(self._look_on_a_fake_clock):
            try:
                yield
            finally:
                self._clock.stop_calling(self._look_on_a_fake_clock)
                self._ear.close()
            return
        self._is_over = False
        self._ended, ender = pipe()
        thread = threading.Thread(target=self._hear, name="daemonkit-waker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over = True
            os.write(ender, b".")
            thread.join(LAST_SECONDS)
            if thread.is_alive():
                self._ear.cut()
            else:
                close_pipe(self._ended, ender)

    def _look_on_a_fake_clock(self) -> float:
        try:
            self._look()
        except Exception as error:
            self._note_failure(error)
        return self._ear.interval

    # The thread

    def _hear(self) -> None:
        while not self._is_over:
            try:
                self._hear_while_connected()
            except Exception as error:
                if not self._is_over:
                    self._pause_after(error)
            finally:
                with contextlib.suppress(Exception):
                    self._ear.close()

    def _hear_while_connected(self) -> None:
        self._ear.open()
        while not self._is_over:
            self._look()
            next_look = time.monotonic() + self._ear.interval
            while not self._is_over and (left := next_look - time.monotonic()) > 0:
                if heard := self._ear.wait(left, self._ended):
                    self._times += heard
                    self._life.bring_forward(patient=True)

    def _look(self) -> None:
        """Compare the counter with what was heard. What was missed wakes the life now."""
        times = self._ear.times()
        if self._failures:
            logger.info("%s hears wake-ups again", self._daemon)
            self._failures = 0
        if times != self._times:
            self._times = times
            self._life.bring_forward(patient=True)

    def _pause_after(self, error: Exception) -> None:
        """The first try after a loss has no pause: most losses are an idle session's end."""
        self._note_failure(error)
        pause = min(LONGEST_PAUSE, 0.1 * 2 ** min(self._failures, 10)) if self._failures > 1 else 0
        until = time.monotonic() + pause
        while not self._is_over and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 2:  # a session that is back at once has missed nothing
            logger.warning(
                "%s hears no wake-ups until it reaches the database again: %s",
                self._daemon,
                one_line(error),
            )


def _refuse_what_cannot_wake(daemon: str, name: object) -> None:
    try:
        check_name(name)
    except ValueError:
        sentence = f"{daemon}: wake_on takes a name of 1 to 200 characters, not {name!r}"
        raise CommandError(sentence, returncode=Exit.USAGE) from None
    alias = conf.database()
    vendor = connections[alias].vendor
    if vendor not in rows.VENDORS:
        raise CommandError(
            f"{daemon}: wake_on works on MySQL, MariaDB, PostgreSQL and SQLite, not on {vendor}; "
            f"name another database in DAEMONKIT['database']",
            returncode=Exit.USAGE,
        )
    listen = connections[conf.listen()].vendor
    if listen != vendor:
        raise CommandError(
            f"DAEMONKIT['listen'] must lead to the database {alias!r}, not to one of {listen}",
            returncode=Exit.MISCONFIGURED,
        )
