"""What daemonkit refuses of APScheduler's API: other stores and executors, starting and ending."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NoReturn

from apscheduler.executors.base import BaseExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler


class _DaemonsPool(BaseExecutor):  # type: ignore[misc]
    """Stands for the daemon's pool of threads, which ``runs()`` serves."""

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> NoReturn:
        raise NotImplementedError("the daemon's own loop gives jobs to its pool")


class Refusals(BaseScheduler):  # type: ignore[misc]
    """A scheduler that keeps its store, its executor and its life."""

    _refused: Exception | None = None
    """The last error of a call, which ``add_jobs()`` ends with if it lets it pass."""

    def start(self, paused: bool = False) -> None:
        self._refuse(RuntimeError("the daemon starts its scheduler itself: remove start()"))

    def shutdown(self, wait: bool = True) -> None:
        self._refuse(RuntimeError("the daemon ends its scheduler itself: call self.finish(why)"))

    def _refuse(self, error: Exception) -> NoReturn:
        self._refused = error
        raise error

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Remember an error of a call, so that ``add_jobs()`` ends with its sentence."""
        try:
            yield
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            self._refused = error
            raise

    def _refuse_store(self, store: Any) -> None:
        raise ValueError(
            f"there is no job store {store!r}, only the memory of each process: for jobs that run "
            f"once among several processes say exclusive=True, or leader = True in the class"
        )

    def _refuse_executor(self, executor: Any) -> None:
        raise ValueError(
            f"there is no executor {executor!r}, only the daemon's pool: set threads in its class; "
            f"for work on other processes say exclusive=True, or leader = True in the class"
        )

    def add_jobstore(self, jobstore: Any, alias: str = "default", **options: Any) -> None:
        if self.state != STATE_STOPPED or not isinstance(jobstore, MemoryJobStore):
            with self._refusing():
                self._refuse_store(alias if jobstore == "memory" else jobstore)
        super().add_jobstore(jobstore, alias, **options)

    def add_executor(self, executor: Any, alias: str = "default", **options: Any) -> None:
        if not isinstance(executor, _DaemonsPool):
            with self._refusing():
                self._refuse_executor(executor)
        super().add_executor(executor, alias, **options)

    def remove_jobstore(self, alias: str, shutdown: bool = True) -> None:
        self._refuse(ValueError("the job store stays; call remove_all_jobs() to empty it"))

    def remove_executor(self, alias: str, shutdown: bool = True) -> None:
        self._refuse(ValueError("the executor stays: it is the daemon's pool"))

    def _create_default_executor(self) -> BaseExecutor:
        return _DaemonsPool()
