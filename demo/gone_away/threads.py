"""Threads of a pool: daemonkit's own with daemonkit, else the standard library's."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from daemonkit import Pool
from demo.gone_away.observer import Observer
from demo.gone_away.remedies import Decorator, Remedy, nothing
from demo.gone_away.units import Outcome, count_failed, session

THREADS = 4


def pool_under_a_decorated_loop(remedy: Remedy, observer: Observer) -> Outcome:
    """A loop gives its work to threads. Only the loop is decorated."""
    with Threads(remedy) as threads:
        observer.kill(*threads.sessions())
        failed: list[int] = []

        def work() -> None:
            failed[:] = [threads.count_failed()]
            if failed[0]:
                raise threads.error

        count_failed(remedy.decorate(work), 1)
        return "failed", failed[0], THREADS


def pool_with_decorated_jobs(remedy: Remedy, observer: Observer) -> Outcome:
    with Threads(remedy, remedy.decorate) as threads:
        observer.kill(*threads.sessions())
        return "failed", threads.count_failed(), THREADS


def sessions_left_by_threads(remedy: Remedy, observer: Observer) -> Outcome:
    """Count the sessions of threads that have ended, before the garbage collector runs."""
    gc.disable()
    try:
        with Threads(remedy, remedy.decorate) as threads:
            found = threads.sessions()
        return "sessions", observer.count_left(found)
    finally:
        gc.enable()
        gc.collect()


class Threads:
    """A pool of threads in which each thread runs one job of every round.

    ``decorate`` is put around each job.
    """

    error: BaseException

    def __init__(self, remedy: Remedy, decorate: Decorator = nothing) -> None:
        self._pool: Any = Pool(THREADS) if remedy.is_daemonkit else ThreadPoolExecutor(THREADS)
        self._decorate = decorate

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close() if isinstance(self._pool, Pool) else self._pool.shutdown()

    def sessions(self) -> list[int]:
        return [future.result() for future in self._round()]

    def count_failed(self) -> int:
        errors = [error for future in self._round() if (error := future.exception())]
        self.error = errors[0] if errors else AssertionError("nothing failed")
        return len(errors)

    def _round(self) -> list[Future[int]]:
        together = threading.Barrier(THREADS)

        def job() -> int:
            together.wait(30)
            return session()

        futures: list[Future[int]] = [
            self._pool.submit(self._decorate(job)) for _ in range(THREADS)
        ]
        for future in futures:
            future.exception(60)
        return futures
