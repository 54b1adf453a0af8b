"""Opens a daemon: runs its checks and enters its ``lifespan()``; waits for the database."""

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
    from daemonkit.event_loop.loop import EventLoop


class Opening(Protocol):
    """The life that is opened."""

    daemon: Daemon
    clock: Clock
    verdict: Verdict

    @property
    def stop(self) -> Stop: ...
    @property
    def event_loop(self) -> EventLoop: ...
    def pulsed(self) -> None: ...
    def wait(self, seconds: float) -> None: ...


def open_when_available(life: Opening, stack: ExitStack, first: Callable[[], object]) -> bool:
    """Run the checks and ``first``, and enter ``lifespan()`` on the stack.

    Tries again while the database is away; returns False if asked to stop meanwhile. Raises other
    errors, and the error from ``Verdict.note_opening()`` if one lasts too long."""
    tries = 0
    while not life.stop.asked:
        try:
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


def _open(life: Opening, stack: ExitStack, first: Callable[[], object]) -> None:
    daemon = life.daemon
    with fresh_connections:
        daemon.check_everything()
        first()
        lifespan: Any = daemon.lifespan()
        if not hasattr(lifespan, "__enter__") and hasattr(lifespan, "__aenter__"):
            from daemonkit.event_loop.lifespan import HeldOpen  # not for a plain loop

            lifespan = HeldOpen(lifespan, life.event_loop)
        if not hasattr(lifespan, "__enter__"):
            raise CommandError(
                f"{daemon.name}.lifespan() returned {lifespan!r}: return a context manager",
                returncode=Exit.USAGE,
            )
        lifespan.__enter__()
        stack.push(_fresh_exit(lifespan))


def _wait_to_try_again(life: Opening, error: Exception, seconds: float) -> None:
    now = life.clock.moment()
    again = min(now.monotonic + seconds, life.verdict.refusal_proven_at)
    announce(signals.database_awaited, life.daemon, error=error, seconds=seconds)
    close_idle(seconds)
    while not life.stop.asked and now.monotonic < again:
        life.pulsed()
        life.wait(again - now.monotonic)
        now = life.clock.moment()


def _fresh_exit(manager: AbstractContextManager[Any]) -> Callable[..., bool | None]:
    """Exit a context manager as a unit of work: connections may have been lost while it was
    open."""

    def leave(*error: Any) -> bool | None:
        with fresh_connections:
            return manager.__exit__(*error)

    return leave
