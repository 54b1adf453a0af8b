"""A listener: an object that receives the signals of one daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.dispatch import Signal

from daemonkit import signals
from daemonkit.signals import Announcer


class Listener:
    """Receives the signals of one daemon or supervisor, but not those of others of its class.

    A subclass implements ``moments()``. Django logs the exceptions of a listener; they do not
    affect the daemon.
    """

    def __init__(self, daemon: Announcer) -> None:
        self.daemon = daemon

    def moments(self) -> Mapping[Signal, Callable[..., None]]:
        """Return the method for each signal. It is called with the signal's details by name."""
        raise NotImplementedError

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while the block runs."""
        sender = type(self.daemon)
        receivers = [(signal, self._receiver(hear)) for signal, hear in self.moments().items()]
        for signal, receiver in receivers:
            signal.connect(receiver, sender=sender, weak=False)
        try:
            yield
        finally:
            for signal, receiver in receivers:
                signal.disconnect(receiver, sender=sender)

    def listen_until_stopped(self) -> None:
        """Listen from now until the life ends, and then call ``close()``."""
        life = contextlib.ExitStack()
        life.callback(self.close)
        life.enter_context(self.listening())
        sender = type(self.daemon)

        def stopped(daemon: Announcer, **_: Any) -> None:
            if daemon is self.daemon:
                signals.daemon_stopped.disconnect(stopped, sender=sender)
                life.close()

        signals.daemon_stopped.connect(stopped, sender=sender, weak=False)

    def close(self) -> None:
        """Release what the listener holds. Called after the life."""

    def _receiver(self, hear: Callable[..., None]) -> Callable[..., None]:
        """Return a receiver that ignores other instances: the sender of a signal is a class."""
        ours = self.daemon

        def receive(signal: Signal, sender: type[Any], daemon: Announcer, **details: Any) -> None:
            if daemon is ours:
                hear(**details)

        return receive
