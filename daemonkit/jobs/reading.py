"""Reads the ledger for ``daemons runs``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from daemonkit import conf
from daemonkit.jobs.rows import from_database
from daemonkit.models import Run
from daemonkit.process.identity import Identity


def read(daemon: str | None = None) -> list[dict[str, Any]]:
    """The rows of one daemon or of all, newest first, at most ``keep_runs`` for each job.

    A running row whose process is gone from this host has the status "killed".
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
    is_gone = row.pid is not None and Identity(row.host, row.pid).is_gone
    status = "killed" if row.status == Run.Status.RUNNING and is_gone else row.status
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
