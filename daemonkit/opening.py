"""Opens a daemon: waits for its database and its migrations, runs its checks, and enters its
``lifespan()``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from django.core.management.base import CommandError

from daemonkit import signals
from daemonkit.clock import Clock
from daemonkit.connections.holding import close_idle
from daemonkit.connections.units import fresh_connections
from daemonkit.exits import Exit
from daemonkit.process.stopping import Stop
from daemonkit.signals import announce
from daemonkit.verdict import Verdict

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.event_loop.coroutines import Coroutines
    from daemonkit.settings.settings import Settings


MIGRATIONS_INTERVAL = 3.0
"""Seconds between two looks whether the migrations are applied."""


class Opening(Protocol):
    """The life that is opened."""

    daemon: Daemon
    settings: Settings
    clock: Clock
    verdict: Verdict

    @property
    def stop(self) -> Stop: ...
    @property
    def coroutines(self) -> Coroutines: ...
    def pulsed(self) -> None: ...
    def wait(self, seconds: float) -> None: ...


def open_when_available(life: Opening, stack: ExitStack, first: Callable[[], object]) -> bool:
    """Run the checks and ``first``, and enter ``lifespan()`` on the stack.

    Tries again while the database is away or migrations are pending; returns False if asked to stop
    meanwhile. Raises other errors, and the error from ``Verdict.note_opening()`` if one lasts too
    long."""
    tries, awaited = 0, ""
    while not life.stop.asked:
        try:
            if pending := _pending_migrations(life):
                if pending != awaited:
                    announce(signals.migrations_awaited, life.daemon, migrations=pending)
                awaited = pending
                _wait(life, MIGRATIONS_INTERVAL)
                continue
            _open(life, stack, first)
            life.verdict.note_opened()
            return True
        except Exception as error:
            ending = life.verdict.note_opening(error, life.clock.moment())
            if ending is error:
                raise
            if ending is not None:
                raise ending from error
            tries += 1
            _wait_to_try_again(life, error, life.daemon.backoff.pause(tries))
    return False


def _pending_migrations(life: Opening) -> str:
    if not life.settings.waits_for_migrations:
        return ""
    from daemonkit.pending_migrations import pending_migrations  # not in tests and development

    with fresh_connections:
        return pending_migrations(life.daemon.module, uses_our_tables=life.settings.uses_our_tables)


def _open(life: Opening, stack: ExitStack, first: Callable[[], object]) -> None:
    daemon = life.daemon
    with fresh_connections:
        daemon.check_everything()
        first()
        lifespan: Any = daemon.lifespan()
        if not hasattr(lifespan, "__enter__") and hasattr(lifespan, "__aenter__"):
            from daemonkit.event_loop.lifespan import HeldOpen  # not for a plain loop

            lifespan = HeldOpen(lifespan, life.coroutines.event_loop)
        if not hasattr(lifespan, "__enter__"):
            raise CommandError(
                f"{daemon.name}.lifespan() returned {lifespan!r}: return a context manager",
                returncode=Exit.USAGE,
            )
        lifespan.__enter__()
        stack.push(_fresh_exit(lifespan))


def _wait_to_try_again(life: Opening, error: Exception, seconds: float) -> None:
    announce(signals.database_awaited, life.daemon, error=error, seconds=seconds)
    _wait(life, min(seconds, life.verdict.refusal_proven_at - life.clock.moment().monotonic))


def _wait(life: Opening, seconds: float) -> None:
    """Wait, unless asked to stop."""
    close_idle(seconds)
    now = life.clock.moment().monotonic
    until = now + seconds
    while not life.stop.asked and now < until:
        life.pulsed()
        life.wait(until - now)
        now = life.clock.moment().monotonic


def _fresh_exit(manager: AbstractContextManager[Any]) -> Callable[..., bool | None]:
    """Exit a context manager as a unit of work: connections may have been lost while it was
    open."""

    def leave(*error: Any) -> bool | None:
        with fresh_connections:
            return manager.__exit__(*error)

    return leave
