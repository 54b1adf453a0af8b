"""Runs jobs in a transaction of their caller, as in Django's TestCase.

Jobs run one after the other on the calling thread, and the ledger is written on its connection. So
they see the rows that the test has made, and its rollback also undoes theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from django.db import DatabaseError

from daemonkit import conf
from daemonkit.connections.pool import Promise, do
from daemonkit.connections.tables import is_table_missing
from daemonkit.errors import one_line
from daemonkit.jobs.rows import SKIPPED, Entry, Rows
from daemonkit.listeners.log import logger
from daemonkit.models import Run


class CallingThread:
    """Replaces the pool: does all work at once, on the calling thread."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def fulfil(self, promises: Iterable[tuple[Promise, Callable[..., object]]]) -> None:
        """Do the work of each promise in turn. Once the life is over, cancel the rest."""
        for promise, work in promises:
            if self._is_over():
                promise.cancel()
            else:
                do(promise, work, (), {})

    def close(self, *, cancel: bool = False, timeout: float | None = None) -> bool:
        return True


class CallersLedger:
    """A ledger on the caller's connection. It writes each row at once."""

    is_kept = True
    claim_seconds = 3.0

    def __init__(self, daemon: str) -> None:
        self._daemon, self._rows = daemon, Rows(daemon)
        self._has_table = True

    def open(self, *, needed: bool) -> dict[str, datetime]:
        self._has_table = not is_table_missing(conf.database(), Run._meta.db_table)
        return self._rows.newest() if self._has_table else {}

    def newest(self) -> dict[str, datetime]:
        return self._rows.newest() if self._has_table else {}

    def claim(self, entry: Entry, replaced: tuple[str, ...] = SKIPPED) -> bool:
        return self._rows.claim(entry, [], replaced)

    def note(self, entry: Entry) -> None:
        if not self._has_table:
            return
        try:
            self._rows.write([entry])
        except DatabaseError as error:  # the job has broken the caller's transaction
            self.complain(error)

    def complain(self, error: Exception) -> None:
        logger.error("the ledger of %s cannot be written: %s", self._daemon, one_line(error))

    def hurry(self) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
