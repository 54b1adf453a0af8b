"""Threads of a pool: of daemonkit's under daemonkit, else of the standard library's."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from daemonkit import Pool
from demo.gone_away.observer import Observer
from demo.gone_away.remedies import Remedy, Work
from demo.gone_away.units import Outcome, count_failed, session

THREADS = 4


def pool_cared_for_by_the_loop(remedy: Remedy, observer: Observer) -> Outcome:
    """The loop hands its work to threads; only the loop itself is a unit of work."""
    with Threads(remedy) as threads:
        observer.kill(*threads.sessions())
        failed: list[int] = []

        def work() -> None:
            failed[:] = [threads.count_failed()]
            if failed[0]:
                raise threads.error

        count_failed(remedy.care(work), 1)
        return "failed", failed[0], THREADS


def pool_cared_for_by_each_job(remedy: Remedy, observer: Observer) -> Outcome:
    with Threads(remedy, remedy.care) as threads:
        observer.kill(*threads.sessions())
        return "failed", threads.count_failed(), THREADS


def sessions_left_by_threads(remedy: Remedy, observer: Observer) -> Outcome:
    """Threads that have ended, before the garbage collector comes by."""
    gc.disable()
    try:
        with Threads(remedy, remedy.care) as threads:
            found = threads.sessions()
        return "sessions", observer.count_left(found)
    finally:
        gc.enable()
        gc.collect()


class Threads:
    """A pool of threads, each of which takes one job of every round: ``daemonkit.Pool``, or the
    standard library's with some care around each job."""

    error: BaseException

    def __init__(self, remedy: Remedy, care: Callable[[Work], Work] = lambda work: work) -> None:
        self._pool: Any = Pool(THREADS) if remedy.is_daemonkit else ThreadPoolExecutor(THREADS)
        self._care = care

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

        futures: list[Future[int]] = [self._pool.submit(self._care(job)) for _ in range(THREADS)]
        for future in futures:
            future.exception(60)
        return futures
