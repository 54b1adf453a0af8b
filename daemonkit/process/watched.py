"""What the watcher watches, and whose orders it takes."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from daemonkit.process.stopping import Tick

if TYPE_CHECKING:
    from daemonkit.process.trial import Trial


class Watched(Protocol):
    """What the watcher has to know of a life, and tells it. Its calls come from other threads."""

    stop_timeout: float
    tick_timeout: float | None
    pulse: float
    may_restart: bool
    """Whether SIGHUP has it execute itself anew. If not, SIGHUP stops it."""
    ending_since: float
    """When it began to end, told or not; infinity before. What is still open must then close within
    ``stop_timeout``."""
    is_over: bool
    """Whether all is done that there was to do: who insists now comes too late."""

    def on_asked(self, reason: str) -> None: ...
    def on_prolonged(self, tick: Tick) -> None: ...
    def on_overdue(self, tick: Tick) -> None: ...
    def on_forced(self, reason: str) -> None: ...
    def on_handlers_replaced(self, handlers: Mapping[signal.Signals, object]) -> None: ...
    def cancel(self, tick: Tick) -> bool:
        """Cancel the task of a tick that is overdue; False if it has none."""

    def on_left(self, reason: str) -> None: ...
    def try_new_code(self) -> Trial | None:
        """Begin to try the new code before the old process goes; None if there is nothing to
        try."""

    def on_reload_failed(self, reason: str) -> None: ...
    def cut(self, threads: set[int], *, for_good: bool) -> None: ...


class Orders(Protocol):
    """The orders of a supervisor. ``descriptor`` can be read when there are some."""

    descriptor: int

    def follow(self, stop: Callable[[str], None], force: Callable[[str], None]) -> bool:
        """Call ``stop`` or ``force`` with the reason of each; False when the supervisor is gone."""


class Unattended:
    """What is watched before a daemon's class is even imported: a signal is kept for it."""

    stop_timeout: float = 25.0
    tick_timeout: float | None = None
    pulse: float = 10.0
    may_restart: bool = True
    ending_since: float = math.inf
    is_over: bool = False

    def on_asked(self, reason: str) -> None: ...
    def on_prolonged(self, tick: Tick) -> None: ...
    def on_overdue(self, tick: Tick) -> None: ...
    def on_forced(self, reason: str) -> None: ...
    def on_handlers_replaced(self, handlers: Mapping[signal.Signals, object]) -> None: ...
    def cancel(self, tick: Tick) -> bool:
        return False

    def try_new_code(self) -> Trial | None:
        return None

    def on_reload_failed(self, reason: str) -> None: ...

    def on_left(self, reason: str) -> None:
        sys.stderr.write(f"forced to end: {reason}\n")

    def cut(self, threads: set[int], *, for_good: bool) -> None: ...
