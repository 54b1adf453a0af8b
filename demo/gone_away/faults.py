"""The faults that are measured, and the one that happens inside a transaction."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TypeAlias

from django.db import connection
from django.db.transaction import atomic

from demo.gone_away import forks, losses, threads
from demo.gone_away.observer import Observer
from demo.gone_away.remedies import Remedy
from demo.gone_away.units import Outcome, count_failed, write

Fault: TypeAlias = Callable[[Remedy, Observer], Outcome]


def called_in_atomic(remedy: Remedy, observer: Observer) -> Outcome:
    note = f"atomic {os.getpid()}"
    answer_from_a_cache = remedy.decorate(lambda: "42")

    def work() -> None:
        with atomic():
            write(note)
            answer_from_a_cache()

    failed = count_failed(work, 1)
    if observer.rows(note):
        return ("row kept",)
    return ("row lost, an error",) if failed else ("row lost, no error",)


FAULTS: dict[str, Fault] = {
    # Forks first: the others start threads.
    "child exits": forks.child_exits,
    "child works": forks.child_works,
    "killed while idle": losses.killed_while_idle,
    "timed out while idle": losses.timed_out_while_idle,
    "killed in a query": losses.killed_in_a_query,
    "lost in commit": losses.lost_in_commit,
    "called in atomic": called_in_atomic,
    "pool, loop": threads.pool_under_a_decorated_loop,
    "pool, jobs": threads.pool_with_decorated_jobs,
    "sessions left": threads.sessions_left_by_threads,
    "half-open": losses.half_open,
}


def try_fault(fault: Fault, remedy: Remedy, observer: Observer) -> Outcome:
    """Measure one fault, starting without a connection."""
    with contextlib.suppress(Exception):
        connection.close()
    connection.connection = None
    return fault(remedy, observer)
