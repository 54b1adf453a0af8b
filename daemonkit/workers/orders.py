"""A worker's end of the pipe on which its supervisor sends orders."""

from __future__ import annotations

import os
from collections.abc import Callable

from daemonkit.workers.wire import LineBuffer, Order, Verb


class Orders:
    """The reading end of the pipe. The worker's watcher reads it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._buffer = LineBuffer()

    def follow(self, stop: Callable[[str], None], force: Callable[[str], None]) -> bool:
        """Read the orders, and call ``stop`` or ``force`` with the reason of each.

        Returns False when the supervisor is gone, which closes its end of the pipe.
        """
        data = os.read(self.descriptor, 4096)
        for line in self._buffer.lines(data):
            order = Order.decode(line)
            follow = force if order.verb is Verb.FORCE else stop
            follow(order.reason)
        return bool(data)
