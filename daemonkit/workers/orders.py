"""The orders of a supervisor, as its worker's watcher reads them."""

from __future__ import annotations

import os
from collections.abc import Callable

from daemonkit.workers.wire import LineBuffer, Order, Verb


class Orders:
    """The reading end of the pipe by which a supervisor tells its worker to stop."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._buffer = LineBuffer()

    def follow(self, stop: Callable[[str], None], force: Callable[[str], None]) -> bool:
        """Read what there is, and call ``stop`` or ``force`` with the reason of each order.

        False when the supervisor is gone: its end of the pipe is closed.
        """
        data = os.read(self.descriptor, 4096)
        for line in self._buffer.lines(data):
            order = Order.decode(line)
            follow = force if order.verb is Verb.FORCE else stop
            follow(order.reason)
        return bool(data)
