"""Reads the ledger for ``daemons runs``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from django.db.models import QuerySet

from daemonkit import conf
from daemonkit.jobs.rows import for_database, from_database
from daemonkit.models import Run
from daemonkit.process.identity import Identity

KILLED = "killed"
"""The status of a running row whose process is gone from this host."""


class Choice(NamedTuple):
    """Which rows to read; None means all. Rows were due at ``since`` or later."""

    daemon: str | None = None
    job: str | None = None
    since: datetime | None = None
    limit: int | None = None
    only_failed: bool = False
    """Whether only failed and killed runs are wanted."""


def read(choice: Choice) -> list[dict[str, Any]]:
    """The chosen rows, newest first, at most ``keep_runs`` for each job."""
    rows = Run.objects.using(conf.database()).order_by("-due", "daemon", "job")
    if choice.daemon is not None:
        rows = rows.filter(daemon=choice.daemon)
    if choice.job is not None:
        rows = rows.filter(job=choice.job)
    if choice.since is not None:
        rows = rows.filter(due__gte=for_database(choice.since))
    return list(islice(_kept(rows, only_failed=choice.only_failed), choice.limit))


def _kept(rows: QuerySet[Run], *, only_failed: bool) -> Iterator[dict[str, Any]]:
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows.iterator():
        seen[row.daemon, row.job] += 1
        if seen[row.daemon, row.job] > conf.keep_runs():
            continue
        found = _as_dict(row)
        if not only_failed or found["status"] in (Run.Status.FAILED, KILLED):
            yield found


def _as_dict(row: Run) -> dict[str, Any]:
    is_gone = row.pid is not None and Identity(row.host, row.pid).is_gone
    status = KILLED if row.status == Run.Status.RUNNING and is_gone else row.status
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
        "attempt": row.attempt,
        "tries": json.loads(row.tries) if row.tries else [],
        "result": row.result,
        "host": row.host,
        "pid": row.pid,
    }
