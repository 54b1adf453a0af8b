"""The ledger: a row for each due time of a job, and what became of it.

Results are written a moment after the runs, many in one transaction: a thousand runs a second must
not be a thousand transactions. The due time of an exclusive job is claimed before its run begins,
by inserting its row.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from django.core.exceptions import ImproperlyConfigured

from daemonkit import conf
from daemonkit.connections.private_session import PrivateSessions
from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.connections.write_behind import WriteBehind
from daemonkit.errors import Problem, classify, one_line
from daemonkit.jobs.rows import Entry, Rows
from daemonkit.models import Run
from daemonkit.schedules.backoff import Backoff

logger = logging.getLogger("daemonkit")

Result = TypeVar("Result")

REQUEST_SECONDS = 5.0
"""The deadline of one request to the database."""

CLAIM_SECONDS = 3.0
"""The longest time for a claim, all its tries together."""

FLUSH_SECONDS = 5.0
"""For the last rows, when the daemon ends."""

COMPLAINT_INTERVAL = 60.0
"""Seconds between two sentences about a ledger that cannot be written."""


class Ledger(Protocol):
    """What the scheduler asks of a ledger."""

    is_kept: bool
    """Whether anything is written."""

    def open(self, *, needed: bool) -> dict[str, datetime]:
        """The newest due time of each job that has a row."""

    def claim(self, entry: Entry) -> bool:
        """Claim a due time for this process. False if another one has it."""

    def note(self, entry: Entry) -> None:
        """Have a row written, a moment later. From any thread; returns at once."""

    def complain(self, error: Exception) -> None:
        """Say that the ledger cannot be written, once a minute."""

    def hurry(self) -> None:
        """Write at once from now on: the process may end at any moment."""

    def flush(self) -> None:
        """Write what is left, within a few seconds. Nothing can be noted after that."""

    def close(self) -> None:
        """End the sessions."""


class NoLedger:
    """The ledger of a daemon with ``ledger = False``."""

    is_kept = False

    def open(self, *, needed: bool) -> dict[str, datetime]:
        return {}

    def claim(self, entry: Entry) -> bool:
        raise NotImplementedError("an exclusive job needs the ledger")

    def note(self, entry: Entry) -> None: ...

    def complain(self, error: Exception) -> None: ...

    def hurry(self) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class DatabaseLedger:
    """The ledger in the database. Only ``open()`` and ``claim()`` raise when that is away."""

    is_kept = True

    def __init__(
        self, daemon: str, sessions: PrivateSessions, claim_seconds: float = CLAIM_SECONDS
    ) -> None:
        self.daemon = daemon
        self.rows = Rows(daemon)
        self._sessions = sessions
        self._claim_seconds = min(claim_seconds, CLAIM_SECONDS)
        self._queue = WriteBehind[Entry](
            self._write,
            name=f"{daemon}-ledger",
            pause=Backoff().pause,
            on_written=self._recovered,
            on_failure=self.complain,
            is_temporary=lambda error: classify(error) is not None,
        )
        self._complained_at = -COMPLAINT_INTERVAL
        self._is_ailing = self._has_no_table = False

    def open(self, *, needed: bool) -> dict[str, datetime]:
        """The newest due time of each job that has a row.

        ``needed``: whether a job cannot do without the ledger. Then this raises what the database
        raises, and ``ImproperlyConfigured`` if there is no table.
        """
        try:
            return self._ask(self.rows.newest)
        except Exception as error:
            is_away = classify(error) is not None
            if needed and (is_away or not self._ask(_is_table_missing)):
                raise
            if not needed:
                self.complain(error)
                return {}
        # Outside of the except block, or the other error would be logged with this one.
        alias = conf.database()
        raise ImproperlyConfigured(
            f"{self.daemon} has jobs that need the ledger (exclusive=True or catch_up=True), and "
            f"it has no table in the database {alias!r}: {how_to_migrate(alias)}"
        )

    def claim(self, entry: Entry) -> bool:
        """Claim a due time for this process. False if another one has it.

        Raises what the database raises, after ``claim_seconds`` at the latest. Then the due time
        must not be run.
        """
        deadline = time.monotonic() + self._claim_seconds
        skips = [each for each in self._queue.pending() if each.job == entry.job and each.is_skip]
        tries = 0
        while True:
            left = max(0.0, deadline - time.monotonic())
            claim = partial(self.rows.claim, entry, skips, again=tries > 0)
            try:
                claimed = self._sessions.claims.run(claim, left)
            except Exception as error:
                tries += 1
                pause = 0.0 if tries == 1 else 0.2
                if classify(error) not in _TRIED_AGAIN or time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
            else:
                self._recovered()
                return claimed

    def note(self, entry: Entry) -> None:
        self._queue.put(entry)

    def hurry(self) -> None:
        self._queue.hurry()

    def flush(self) -> None:
        left = self._queue.close(FLUSH_SECONDS)
        if left and not self._has_no_table:
            logger.error("the ledger of %s lacks its last %d rows", self.daemon, left)
        elif self.rows.has_new_rows:
            try:
                self._ask(partial(self.rows.prune, all_jobs=True))
            except Exception as error:
                self.complain(error)

    def close(self) -> None:
        self._sessions.close()

    def _ask(self, work: Callable[[], Result]) -> Result:
        return self._sessions.ledger.run(work, REQUEST_SECONDS)

    def _write(self, entries: list[Entry]) -> None:
        self._ask(lambda: self.rows.write(entries))
        self._ask(self.rows.prune)

    # When it cannot be written

    def complain(self, error: Exception, lost: int = 0) -> None:
        """Say that the ledger cannot be written, once a minute."""
        now = time.monotonic()
        if now - self._complained_at >= COMPLAINT_INTERVAL:
            self._complained_at, self._is_ailing = now, True
            logger.error(
                "the ledger of %s cannot be written: %s%s%s",
                self.daemon,
                one_line(error),
                f"; {lost} older entries are lost" if lost else "",
                self._mend(error),
            )

    def _mend(self, error: Exception) -> str:
        if classify(error) is None:
            with contextlib.suppress(Exception):
                self._has_no_table = self._ask(_is_table_missing)
        how = how_to_migrate(conf.database())
        return f". It has no table: {how}" if self._has_no_table else ""

    def _recovered(self) -> None:
        if self._is_ailing:
            self._is_ailing = self._has_no_table = False
            logger.info("the ledger of %s can be written again", self.daemon)


_TRIED_AGAIN = (Problem.RETRY, Problem.LOST, Problem.UNREACHABLE)


def _is_table_missing() -> bool:
    return is_table_missing(conf.database(), Run._meta.db_table)
