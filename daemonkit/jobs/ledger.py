"""The ledger: a row for each due time of a job, with its outcome.

Results are written shortly after the runs, many in one transaction, so that a thousand runs a
second are not a thousand transactions. The due time of an exclusive job is claimed before its run
by inserting its row."""

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
from daemonkit.jobs.rows import SKIPPED, Entry, Rows
from daemonkit.models import Run
from daemonkit.schedules.backoff import Backoff

logger = logging.getLogger("daemonkit")

Result = TypeVar("Result")

REQUEST_SECONDS = 5.0
"""The time limit of one request to the database."""

PASSING = (Problem.RETRY, Problem.LOST, Problem.UNREACHABLE)
"""Problems after which a claim is tried again."""

CLAIM_SECONDS = 3.0
"""The time limit of a claim with all its tries."""

FLUSH_SECONDS = 5.0
"""The time limit for writing the last rows when the daemon ends."""

COMPLAINT_INTERVAL = 60.0
"""Seconds between two log messages about a ledger that cannot be written."""


class Ledger(Protocol):
    """The ledger, as the scheduler uses it."""

    is_kept: bool
    """Whether anything is written."""
    claim_seconds: float
    """The time limit of a claim."""

    def open(self, *, needed: bool) -> dict[str, datetime]:
        """The newest due time of each job that has a row."""

    def newest(self) -> dict[str, datetime]:
        """The newest due time of each job that has a row. Raises the errors of the database."""

    def claim(self, entry: Entry, replaced: tuple[str, ...] = ...) -> bool:
        """Claim a due time for this process. False if another one has it. A row in one of the
        states ``replaced`` does not count."""

    def note(self, entry: Entry) -> None:
        """Write a row soon. From any thread; returns at once."""

    def complain(self, error: Exception) -> None:
        """Log that the ledger cannot be written, at most once a minute."""

    def hurry(self) -> None:
        """Write at once from now on: the process may end at any moment."""

    def flush(self) -> None:
        """Write the remaining rows, within a few seconds. Nothing can be noted afterwards."""

    def close(self) -> None:
        """Close the sessions."""


class NoLedger:
    """The ledger of a daemon with ``ledger = False``."""

    is_kept = False
    claim_seconds = CLAIM_SECONDS

    def open(self, *, needed: bool) -> dict[str, datetime]:
        return {}

    def newest(self) -> dict[str, datetime]:
        return {}

    def claim(self, entry: Entry, replaced: tuple[str, ...] = SKIPPED) -> bool:
        raise NotImplementedError("an exclusive job needs the ledger")

    def note(self, entry: Entry) -> None: ...

    def complain(self, error: Exception) -> None: ...

    def hurry(self) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class DatabaseLedger:
    """The ledger in the database. Only ``open()`` and ``claim()`` raise when it is away."""

    is_kept = True

    def __init__(
        self, daemon: str, sessions: PrivateSessions, claim_seconds: float = CLAIM_SECONDS
    ) -> None:
        self.daemon = daemon
        self.rows = Rows(daemon)
        self._sessions = sessions
        self.claim_seconds = min(claim_seconds, CLAIM_SECONDS)
        self._queue = WriteBehind[Entry](
            self._write,
            name=f"{daemon}-ledger",
            pause=Backoff().pause,
            on_written=self._recovered,
            on_failure=self.complain,
            is_temporary=lambda error: classify(error) is not None,
        )
        self._complained_at = -COMPLAINT_INTERVAL
        self._is_failing = self._has_no_table = False

    def open(self, *, needed: bool) -> dict[str, datetime]:
        """The newest due time of each job that has a row.

        ``needed`` says whether a job needs the ledger. Then this raises the errors of the database,
        and ``ImproperlyConfigured`` if there is no table.
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
        # Outside the except block, or the first error would be logged with this one.
        alias = conf.database()
        raise ImproperlyConfigured(
            f"{self.daemon} has jobs that need the ledger (exclusive=True or catch_up=True), and "
            f"it has no table in the database {alias!r}: {how_to_migrate(alias)}"
        )

    def newest(self) -> dict[str, datetime]:
        return self._ask(self.rows.newest)

    def claim(self, entry: Entry, replaced: tuple[str, ...] = SKIPPED) -> bool:
        """Claim a due time for this process. False if another one has it.

        Raises the errors of the database, after ``claim_seconds`` at the latest. The due time must
        not be run then.
        """
        deadline = time.monotonic() + self.claim_seconds
        skips = [each for each in self._queue.pending() if each.job == entry.job and each.is_skip]
        tries = 0
        while True:
            left = max(0.0, deadline - time.monotonic())
            claim = partial(self.rows.claim, entry, skips, replaced, retried=tries > 0)
            try:
                claimed = self._sessions.claims.run(claim, left)
            except Exception as error:
                tries += 1
                pause = 0.0 if tries == 1 else 0.2
                if classify(error) not in PASSING or time.monotonic() + pause >= deadline:
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
        """Log that the ledger cannot be written, at most once a minute."""
        now = time.monotonic()
        if now - self._complained_at >= COMPLAINT_INTERVAL:
            self._complained_at, self._is_failing = now, True
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
        if self._is_failing:
            self._is_failing = self._has_no_table = False
            logger.info("the ledger of %s can be written again", self.daemon)


def _is_table_missing() -> bool:
    return is_table_missing(conf.database(), Run._meta.db_table)
