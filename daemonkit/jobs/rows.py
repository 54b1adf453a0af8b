"""Reads and writes the ledger's rows, in the table of ``daemonkit.models.Run``.

It uses the ORM on the alias ``DAEMONKIT["database"]``, and raises the errors of the database.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import NamedTuple

from django.conf import settings
from django.db import IntegrityError, connections, transaction
from django.db.models import F, Max, QuerySet, Window
from django.db.models.functions import RowNumber

from daemonkit import conf
from daemonkit.jobs.skip_reason import SkipReason
from daemonkit.models import Run
from daemonkit.process.identity import host_name

_KEY = ["daemon", "job", "due"]
_RESULTS = ["status", "reason", "late", "started", "seconds", "error", "host", "pid"]
_RESULTS += ["attempt", "tries", "result"]

BATCH_SIZE = 500
"""The largest number of rows in one statement."""

PRUNE_SIZE = 2000
"""The largest number of rows that one pruning deletes."""


SKIPPED: tuple[str, ...] = (Run.Status.SKIPPED,)
"""The states of rows whose due times may still be run."""


class Entry(NamedTuple):
    """The data for the row of one due time of a job."""

    job: str
    due: datetime
    status: str
    reason: str = ""
    late: float = 0.0
    started: float | None = None
    seconds: float | None = None
    error: str = ""
    attempt: int = 1
    tries: tuple[str, ...] = ()
    """The errors of the failed tries before this one."""
    result: str = ""
    is_tentative: bool = False
    """Whether it must not overwrite the row of a run that has succeeded."""

    @property
    def is_skip(self) -> bool:
        """Whether the due time passed without a run. One that a run decided to skip had one."""
        return self.status == Run.Status.SKIPPED and self.reason != SkipReason.DECIDED


class Rows:
    """The rows of one daemon's jobs, as this process writes them."""

    def __init__(self, daemon: str) -> None:
        self.daemon = daemon
        self.host, self.pid = host_name(), os.getpid()
        self._new_rows: Counter[str] = Counter()  # of each job, since it was pruned

    @property
    def has_new_rows(self) -> bool:
        """Whether rows were written since the last pruning."""
        return bool(self._new_rows)

    def newest(self) -> dict[str, datetime]:
        """The newest due time of each job that has a row. A row that only says that a process was
        not the leader does not count: it may be that nobody was."""
        rows = self._all().exclude(status=Run.Status.SKIPPED, reason=SkipReason.NOT_LEADER)
        found = rows.values("job").annotate(newest=Max("due")).order_by()
        return {row["job"]: from_database(row["newest"]) for row in found}

    # Claims of exclusive runs

    def claim(
        self,
        entry: Entry,
        skips: list[Entry],
        replaced: tuple[str, ...] = SKIPPED,
        *,
        retried: bool = False,
    ) -> bool:
        """Insert the row of a run that is about to begin. False if another process has it.

        ``skips`` are this job's earlier due times that are still to be written. They are written
        first: if this process is killed now, the next one looks no further back than this claim.
        ``replaced`` are the states of rows that it replaces. ``retried`` says that an earlier try
        got no answer; it may have taken effect.
        """
        if skips:
            self._insert_skips(skips)
        row = self._row(entry)
        try:
            with _savepoint():
                row.save(using=conf.database(), force_insert=True)  # one statement, in autocommit
        except IntegrityError:
            return (retried and self._is_ours(row)) or self._take_over(row, replaced)
        return True

    def _is_ours(self, row: Run) -> bool:
        return self._claims().filter(job=row.job, due=row.due, started=row.started).exists()

    def _take_over(self, row: Run, replaced: tuple[str, ...]) -> bool:
        """Claim a due time that another process could not run. If several try, one succeeds."""
        skipped = self._all().filter(job=row.job, due=row.due, status__in=replaced)
        if replaced == SKIPPED:
            skipped = skipped.exclude(reason=SkipReason.DECIDED)
        return bool(skipped.update(**{name: getattr(row, name) for name in _RESULTS}))

    def _claims(self) -> QuerySet[Run]:
        return self._all().filter(host=self.host, pid=self.pid, status=Run.Status.RUNNING)

    # Runs whose claim and work commit together

    def is_to_run(self, entry: Entry, replaced: tuple[str, ...], *, is_retry: bool) -> bool:
        """Whether nobody has run a due time. A retry finds the failure of its earlier try."""
        row = self._all().filter(job=entry.job, due=for_database(entry.due)).first()
        if row is None or (row.status == Run.Status.SKIPPED and row.reason != SkipReason.DECIDED):
            return True
        if replaced != SKIPPED:
            return row.status in replaced
        return is_retry and row.status == Run.Status.FAILED

    def write_in_transaction(self, entry: Entry) -> None:
        """Write the outcome of a run, in the transaction of its work."""
        self._upsert([entry])
        self._new_rows[entry.job] += 1

    # Results and skips

    def write(self, entries: list[Entry]) -> None:
        """Write the outcomes of due times in one transaction.

        A result overwrites the row of its due time; a skip does not. Rows are sorted, so that
        processes that write the same ones do not deadlock.
        """
        results = {(each.job, each.due): each for each in entries if not each.is_skip}
        skips = {(each.job, each.due): each for each in entries if each.is_skip}
        with transaction.atomic(using=conf.database()):
            self._insert_skips([skips[key] for key in sorted(skips.keys() - results.keys())])
            found = [results[key] for key in sorted(results)]
            self._upsert([each for each in found if not each.is_tentative])
            self._write_tentative([each for each in found if each.is_tentative])
        self._new_rows.update(job for job, _ in results.keys() | skips.keys())

    def _upsert(self, entries: Iterable[Entry]) -> None:
        features = connections[conf.database()].features
        Run.objects.using(conf.database()).bulk_create(
            [self._row(each) for each in entries],
            batch_size=BATCH_SIZE,
            update_conflicts=True,
            update_fields=_RESULTS,
            unique_fields=_KEY if features.supports_update_conflicts_with_target else None,
        )

    def _write_tentative(self, entries: list[Entry]) -> None:
        """Write failures of runs whose COMMIT may have succeeded without an answer."""
        rows = [self._row(each) for each in entries]
        Run.objects.using(conf.database()).bulk_create(rows, ignore_conflicts=True)
        for row in rows:
            found = self._all().filter(job=row.job, due=row.due).exclude(status=Run.Status.RAN)
            found.update(**{name: getattr(row, name) for name in _RESULTS})

    def _insert_skips(self, entries: list[Entry]) -> None:
        rows = [self._row(each) for each in entries]
        for row in rows:
            # A claim of ours that got no answer may have taken effect.
            if row.reason == SkipReason.LEDGER:
                claim = self._claims().filter(job=row.job, due=row.due)
                claim.update(status=row.status, reason=row.reason)
        Run.objects.using(conf.database()).bulk_create(
            rows, batch_size=BATCH_SIZE, ignore_conflicts=True
        )

    # Pruning

    def prune(self, *, all_jobs: bool = False) -> None:
        """Delete all but the newest ``keep_runs`` rows of each job, at most ``PRUNE_SIZE`` rows.

        With more than ten jobs, only those with a tenth of new rows are pruned, unless
        ``all_jobs``: finding old rows costs as much as writing new ones."""
        keep, jobs = conf.keep_runs(), set(self._new_rows)
        if len(jobs) > 10 and not all_jobs:
            jobs = {job for job in jobs if self._new_rows[job] * 10 >= keep}
        if jobs and self._delete_old(jobs, keep) < PRUNE_SIZE:
            for job in jobs:
                del self._new_rows[job]

    def _delete_old(self, jobs: set[str], keep: int) -> int:
        newest_first = Window(RowNumber(), partition_by="job", order_by=F("due").desc())
        old = self._all().filter(job__in=jobs).annotate(turn=newest_first).filter(turn__gt=keep)
        keys = list(old.order_by().values_list("pk", flat=True)[:PRUNE_SIZE])
        for start in range(0, len(keys), BATCH_SIZE):
            self._all().filter(pk__in=keys[start : start + BATCH_SIZE]).delete()
        return len(keys)

    def _all(self) -> QuerySet[Run]:
        return Run.objects.using(conf.database()).filter(daemon=self.daemon)

    def _row(self, entry: Entry) -> Run:
        started = None if entry.started is None else datetime.fromtimestamp(entry.started, UTC)
        return Run(
            daemon=self.daemon,
            job=entry.job,
            due=for_database(entry.due),
            status=entry.status,
            reason=entry.reason,
            late=entry.late,
            started=started and for_database(started),
            seconds=entry.seconds,
            error=entry.error,
            host=self.host,
            pid=self.pid,
            attempt=entry.attempt,
            tries=json.dumps(entry.tries) if entry.tries else None,
            result=entry.result,
        )


def _savepoint() -> AbstractContextManager[None]:
    """A savepoint for an IntegrityError, inside a transaction of a test; else nothing."""
    if connections[conf.database()].in_atomic_block:
        return transaction.atomic(using=conf.database())
    return contextlib.nullcontext()


# Without USE_TZ columns have no time zone. They hold UTC, in which no hour is repeated.


def for_database(moment: datetime) -> datetime:
    return moment if settings.USE_TZ else moment.astimezone(UTC).replace(tzinfo=None)


def from_database(moment: datetime) -> datetime:
    return moment if settings.USE_TZ else moment.replace(tzinfo=UTC)
