"""The interface of a daemon's command for the rest of daemonkit."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from daemonkit.iteration import Iteration
from daemonkit.process.stopping import Stop
from daemonkit.schedules.backoff import Backoff
from daemonkit.signals import Lives


class Running(Lives, Protocol):
    """One run of a daemon, as its listeners see it."""

    @property
    def schedule(self) -> object: ...
    @property
    def once(self) -> bool: ...
    @property
    def stop(self) -> Stop: ...


class Daemon(Protocol):
    """A command that a life can run."""

    backoff: Backoff
    schedule: Any
    missing_schedule: str
    ledger: bool
    serial: bool
    jitter: Any
    catch_up: bool
    per_worker: bool
    wait_for_migrations: bool
    wake_on: str
    expect_success_within: float | None
    worker_number: int
    is_supervised: bool

    @property
    def has_serve(self) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def life(self) -> Running: ...
    @property
    def is_started_by_shell(self) -> bool: ...
    def left_over(self) -> str: ...
    def check_class(self, workers: int = 1) -> None: ...
    def check_everything(self) -> None: ...
    def lifespan(self) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]: ...
    def on_error(self, iteration: Iteration) -> Any: ...
