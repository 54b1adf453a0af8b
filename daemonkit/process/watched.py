"""The interfaces of what a watcher watches, and of the supervisor whose orders it follows."""

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
    """A life as its watcher sees it. The watcher calls its methods from other threads."""

    stop_timeout: float
    tick_timeout: float | None
    pulse: float
    may_restart: bool
    """Whether SIGHUP re-executes the process. If not, SIGHUP stops it."""
    ending_since: float
    """When it began to end, for whatever reason; infinity before. What is still open must then
    close within ``stop_timeout``."""
    is_over: bool
    """Whether it has ended. A second signal then no longer forces the end."""

    def on_asked(self, reason: str) -> None: ...
    def on_prolonged(self, tick: Tick) -> None: ...
    def on_overdue(self, tick: Tick) -> None: ...
    def on_forced(self, reason: str) -> None: ...
    def on_handlers_replaced(self, handlers: Mapping[signal.Signals, object]) -> None: ...
    def cancel(self, tick: Tick) -> bool:
        """Cancel the task of a tick that is overdue; False if it has none."""

    def on_left(self, reason: str) -> None: ...
    def try_new_code(self) -> Trial | None:
        """Start a trial of the new code; None if there is nothing to try."""

    def on_reload_failed(self, reason: str) -> None: ...
    def cut(self, threads: set[int], *, for_good: bool) -> None: ...


class Orders(Protocol):
    """The orders of a supervisor. ``descriptor`` is readable when there are some."""

    descriptor: int

    def follow(self, stop: Callable[[str], None], force: Callable[[str], None]) -> bool:
        """Call ``stop`` or ``force`` with the reason of each; False if the supervisor is gone."""


class Unattended:
    """Ignores everything. Watched before a daemon's class is imported: a signal then stops the
    later life. A base for what needs few of these methods."""

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
