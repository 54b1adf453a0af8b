"""The ledger: a row for each due time of a job, and what became of it.

Rows of runs are written together, a moment after the runs, by a thread of its own: a thousand runs
a second must not be a thousand transactions. A run that is exclusive is claimed before it begins,
by its row, in a transaction of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections, transaction
from django.db.models import F, Max, QuerySet, Window
from django.db.models.functions import RowNumber

from daemonkit import conf
from daemonkit.connections.pool import Pool
from daemonkit.connections.units import drop_all, fresh_connections
from daemonkit.errors import Problem, classify, one_line
from daemonkit.models import Run
from daemonkit.schedules.backoff import Backoff

logger = logging.getLogger("daemonkit")

GATHERING = 0.25
"""Seconds for which rows gather before they are written together."""

MOST_UNWRITTEN = 20_000
"""Rows that are kept while the database is away; beyond that the oldest are lost."""

QUIET = 60.0
"""Seconds between two sentences about a ledger that cannot be written."""

CLOSING = 5.0
"""Seconds for the last rows, when the daemon ends."""


class Entry(NamedTuple):
    """What is to be written about one due time."""

    job: str
    due: datetime
    status: str
    reason: str = ""
    late: float = 0.0
    started: float | None = None
    seconds: float | None = None
    error: str = ""


class Ledger:
    """The rows of one daemon's jobs. Nothing of it raises because the database is away, but
    ``open`` and ``claim``. ``off``: nothing is read or written."""

    def __init__(self, daemon: str, *, off: bool = False) -> None:
        self.daemon, self.off = daemon, off
        self.host, self.pid = socket.gethostname(), os.getpid()
        self._unwritten: deque[Entry] = deque(maxlen=MOST_UNWRITTEN)
        self._in_hand: list[Entry] = []
        self._moving = threading.Lock()  # of entries from one to the other
        self._writing = threading.Lock()
        self._hurry = threading.Event()
        self._pool: Pool | None = None
        self._since_pruned: Counter[str] = Counter()
        self._failures = 0
        self._complained = -QUIET
        self._is_ailing = False

    # Before the first run

    def open(self, *, needed: bool) -> dict[str, datetime]:
        """The newest due time that has a row, of each job.

        ``needed``: whether a job cannot do without. Then this raises what the database raises, and
        ``ImproperlyConfigured`` if there is no table.
        """
        if self.off:
            return {}
        try:
            with fresh_connections:
                return self._newest()
        except Exception as error:
            if needed and not self._is_missing():
                raise
            if not needed:
                self.complain(error)
                return {}
        # Out of the block, or the unit of work around us would end in that error, too.
        raise ImproperlyConfigured(
            f"{self.daemon} has jobs that need the ledger (exclusive=True or catch_up=True), and "
            f"it has no table in the database {conf.database()!r}: run `manage.py migrate`"
        )

    def _newest(self) -> dict[str, datetime]:
        found = self._rows().values("job").annotate(newest=Max("due")).order_by()
        return {row["job"]: from_database(row["newest"]) for row in found}

    def _is_missing(self) -> bool:
        """Whether the table is missing. Raises what the database raises if it does not say."""
        with fresh_connections:
            connection = connections[conf.database()]
            return Run._meta.db_table not in connection.introspection.table_names()

    def _rows(self) -> QuerySet[Run]:
        return Run.objects.using(conf.database()).filter(daemon=self.daemon)

    # Exclusive runs

    def claim(self, entry: Entry) -> bool:
        """Claim a due time for this process: whether it is ours.

        Raises what the database raises; then it must not run.
        """
        for tries_left in (2, 1, 0):
            try:
                claimed = self._claim(entry)
            except Exception as error:
                if tries_left == 0 or classify(error) is not Problem.RETRY:
                    raise
            else:
                self._recovered()
                return claimed
        raise AssertionError("not reached")

    def _claim(self, entry: Entry) -> bool:
        """What is still to be written of earlier due times is written first: were this process
        killed now, the ones that start after it would look back no further than this claim."""
        skips = [each for each in self._pending() if each.job == entry.job and _is_skip(each)]
        if skips:
            self._write_skips(skips)
        try:
            with transaction.atomic(using=conf.database(), durable=True):
                self._row(entry).save(using=conf.database(), force_insert=True)
        except IntegrityError:
            return self._take_over(entry)
        self._since_pruned[entry.job] += 1
        return True

    def _take_over(self, entry: Entry) -> bool:
        """Claim a due time of which another process has said that it could not run it. Of several
        that try, the server lets one find the row as it was."""
        row = self._row(entry)
        skipped = self._rows().filter(job=row.job, due=row.due, status=Run.Status.SKIPPED)
        return bool(skipped.update(**{name: getattr(row, name) for name in _RESULTS}))

    # What became of it

    def note(self, entry: Entry) -> None:
        """Have a row written, a moment later. From any thread; returns at once."""
        if self.off:
            return
        with self._moving:
            self._unwritten.append(entry)
        if not self._writing.locked():
            self._write_soon()

    def hurry(self) -> None:
        """Let nothing gather any more: the process may be ended at any moment."""
        self._hurry.set()

    def _pending(self) -> list[Entry]:
        with self._moving:
            return [*self._in_hand, *self._unwritten]

    def _write_soon(self) -> None:
        if self._writing.acquire(blocking=False):
            if self._pool is None:
                self._pool = Pool(threads=1, name=f"{self.daemon}-ledger")
            self._pool.submit(self._gather_and_write).add_done_callback(self._written)

    def _gather_and_write(self) -> BaseException | None:
        """What went wrong, if anything: it is told of once a minute, and not with each try."""
        self._hurry.wait(Backoff().pause(self._failures) if self._failures else GATHERING)
        with self._moving:
            self._in_hand = list(self._unwritten)
            self._unwritten.clear()
        if error := self._tried(lambda: self._write(self._in_hand)):
            self._put_back()
        self._in_hand = []
        return error

    def _tried(self, work: Callable[[], None]) -> BaseException | None:
        try:
            work()
        except BaseException as error:
            drop_all()
            return error
        return None

    def _put_back(self) -> None:
        with self._moving:
            room = MOST_UNWRITTEN - len(self._unwritten)
            self._unwritten.extendleft(reversed(self._in_hand[max(0, len(self._in_hand) - room) :]))

    def _written(self, future: Any) -> None:
        error = future.exception() or future.result()
        self._failures = self._failures + 1 if error else 0
        if error:
            self.complain(error)
        else:
            self._recovered()
        self._writing.release()
        if self._unwritten and not (error and self._hurry.is_set()):
            self._write_soon()

    def _write(self, entries: list[Entry]) -> None:
        """One transaction. What ran replaces what is said of a due time, what did not run does
        not. Sorted, so that processes that write the same rows do not lock each other out."""
        newest = {(each.job, each.due): each for each in sorted(entries, key=_skipped_first)}
        entries = [newest[key] for key in sorted(newest)]
        alias = conf.database()
        has_target = connections[alias].features.supports_update_conflicts_with_target
        with transaction.atomic(using=alias):
            self._write_skips([each for each in entries if _is_skip(each)])
            Run.objects.using(alias).bulk_create(
                [self._row(each) for each in entries if not _is_skip(each)],
                batch_size=500,
                update_conflicts=True,
                update_fields=_RESULTS,
                unique_fields=_KEY if has_target else None,
            )
        self._since_pruned.update(each.job for each in entries)
        self._prune({each.job for each in entries})

    def _write_skips(self, entries: list[Entry]) -> None:
        """Where nobody has said more. A claim of our own of which we did not learn that it took
        effect is taken back."""
        ours = self._rows().filter(host=self.host, pid=self.pid, status=Run.Status.RUNNING)
        rows = [self._row(each) for each in entries]
        for row in rows:
            if row.reason == "ledger":
                found = ours.filter(job=row.job, due=row.due)
                found.update(status=row.status, reason=row.reason)
        Run.objects.using(conf.database()).bulk_create(rows, batch_size=500, ignore_conflicts=True)

    def _row(self, entry: Entry) -> Run:
        return Run(
            daemon=self.daemon,
            job=entry.job,
            due=for_database(entry.due),
            status=entry.status,
            reason=entry.reason,
            late=entry.late,
            started=None if entry.started is None else for_database(_utc(entry.started)),
            seconds=entry.seconds,
            error=entry.error,
            host=self.host,
            pid=self.pid,
        )

    def _prune(self, jobs: set[str], *, all_of_them: bool = False) -> None:
        """Keep the newest rows of each job. Of many jobs at once only those that have grown by a
        tenth: to look costs as much as to write."""
        keep = conf.keep_runs()
        if len(jobs) > 10 and not all_of_them:
            jobs = {job for job in jobs if self._since_pruned[job] * 10 >= keep}
        if not jobs:
            return
        newest_first = Window(RowNumber(), partition_by="job", order_by=F("due").desc())
        old = self._rows().filter(job__in=jobs).annotate(turn=newest_first).filter(turn__gt=keep)
        doomed = list(old.order_by().values_list("pk", flat=True))
        for start in range(0, len(doomed), 500):
            self._rows().filter(pk__in=doomed[start : start + 500]).delete()
        for job in jobs:
            del self._since_pruned[job]

    # When it cannot be written, and at the end

    def complain(self, error: BaseException) -> None:
        """Say that it cannot be written, now and then."""
        now = time.monotonic()
        if now - self._complained >= QUIET:
            self._complained, self._is_ailing = now, True
            logger.error(
                "the ledger of %s cannot be written: %s%s",
                self.daemon,
                one_line(error),
                self._mend(error),
            )

    def _mend(self, error: BaseException) -> str:
        if classify(error) is None:
            with contextlib.suppress(Exception):
                if self._is_missing():
                    return ". It has no table: run `manage.py migrate`"
        return ""

    def _recovered(self) -> None:
        if self._is_ailing:
            self._is_ailing = False
            logger.info("the ledger of %s can be written again", self.daemon)

    def close(self) -> None:
        """Write what is left, within a few seconds."""
        self.hurry()
        if self._pool is None:
            return
        until = time.monotonic() + CLOSING
        if self._writing.acquire(timeout=CLOSING):
            last = self._pool.submit(self._tried, self._write_the_last)
            last.add_done_callback(self._written_the_last)
        if not self._pool.close(timeout=max(0.0, until - time.monotonic())):
            logger.error("the ledger of %s lacks its last rows", self.daemon)

    def _write_the_last(self) -> None:
        if self._unwritten:
            self._write(list(self._unwritten))
        self._prune(set(self._since_pruned), all_of_them=True)

    def _written_the_last(self, future: Any) -> None:
        if error := future.exception() or future.result():
            self.complain(error)


def read(daemon: str | None = None) -> list[dict[str, Any]]:
    """The rows of one daemon, or of all: the newest first, ``keep_runs`` of each job at the most.

    One whose process is gone from this host is "killed", whatever it says itself.
    """
    rows = Run.objects.using(conf.database()).order_by("-due", "daemon", "job")
    if daemon is not None:
        rows = rows.filter(daemon=daemon)
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for row in rows.iterator():
        seen[row.daemon, row.job] += 1
        if seen[row.daemon, row.job] <= conf.keep_runs():
            found.append(_as_dict(row))
    return found


def _as_dict(row: Run) -> dict[str, Any]:
    status = "killed" if row.status == Run.Status.RUNNING and _is_gone(row) else row.status
    return {
        "daemon": row.daemon,
        "job": row.job,
        "due": from_database(row.due),
        "status": status,
        "reason": row.reason,
        "late": row.late,
        "started": None if row.started is None else from_database(row.started),
        "seconds": row.seconds,
        "error": row.error,
        "host": row.host,
        "pid": row.pid,
    }


def _is_gone(row: Run) -> bool:
    """Whether the process of a running row has ended, as far as one can see from here."""
    if row.host != socket.gethostname() or row.pid is None:
        return False
    try:
        os.kill(row.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


_KEY = ["daemon", "job", "due"]
_RESULTS = ["status", "reason", "late", "started", "seconds", "error", "host", "pid"]


def _is_skip(entry: Entry) -> bool:
    return entry.status == Run.Status.SKIPPED


def _skipped_first(entry: Entry) -> bool:
    return not _is_skip(entry)


def _utc(wall: float) -> datetime:
    return datetime.fromtimestamp(wall, UTC)


# A project without USE_TZ has columns without a zone: they hold UTC, in which no hour comes twice.


def for_database(moment: datetime) -> datetime:
    return moment if settings.USE_TZ else moment.astimezone(UTC).replace(tzinfo=None)


def from_database(moment: datetime) -> datetime:
    return moment if settings.USE_TZ else moment.replace(tzinfo=UTC)
