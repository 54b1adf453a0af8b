"""A listener: an object that hears the moments of one daemon's life."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.dispatch import Signal

from daemonkit import signals
from daemonkit.signals import Announcer


class Listener:
    """Hears the moments of one daemon, or of one supervisor, and of no other of the same class.

    A subclass writes ``moments()``. What it raises is logged by Django and changes nothing.
    """

    def __init__(self, daemon: Announcer) -> None:
        self.daemon = daemon

    def moments(self) -> Mapping[Signal, Callable[..., None]]:
        """Which method hears which signal. It gets the signal's details by name."""
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
        """Listen from now on until the life is over, and then ``close()``."""
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
        """Give up what the listener holds, after the life."""

    def _receiver(self, hear: Callable[..., None]) -> Callable[..., None]:
        """Signals are sent by class: one for another instance is not for us."""
        ours = self.daemon

        def receive(signal: Signal, sender: type[Any], daemon: Announcer, **details: Any) -> None:
            if daemon is ours:
                hear(**details)

        return receive
