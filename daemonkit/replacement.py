"""The wait of a worker that has reached a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from daemonkit import signals
from daemonkit.connections.holding import close_idle
from daemonkit.process.stopping import Stop
from daemonkit.signals import announce
from daemonkit.verdict import Verdict

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon


class Replaced(Protocol):
    """The life of a worker."""

    daemon: Daemon
    pulse: float
    verdict: Verdict

    @property
    def stop(self) -> Stop: ...
    def pulsed(self) -> None: ...
    def wait(self, seconds: float) -> None: ...


def await_replacement(life: Replaced) -> None:
    """Wait until the supervisor stops this worker. It replaces its workers one after the other."""
    close_idle(life.pulse)
    while not life.stop.asked:
        announce(signals.limit_reached, life.daemon, reason=life.verdict.outcome)
        life.pulsed()
        life.wait(life.pulse)
