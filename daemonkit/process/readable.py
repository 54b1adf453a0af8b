"""Waits for a socket or a descriptor, until a stop request or a wake-up ends the wait."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from typing import Any, Protocol

from daemonkit.process.stopping import Stop, milliseconds


class Waiting(Protocol):
    """The life whose work waits."""

    home: int | None

    @property
    def stop(self) -> Stop: ...
    @property
    def clock(self) -> Any: ...
    @property
    def coroutines(self) -> Any: ...
    @property
    def schedule(self) -> Any: ...
    @property
    def pace(self) -> Any: ...


def wait_for(life: Waiting, source: Any, seconds: float) -> list[Any]:
    """Wait until one of the sources can be read. See ``BaseDaemonCommand.wait_for()``."""
    life.coroutines.refuse_in_a_coroutine(
        "self.wait_for", "await asyncio.to_thread(self.wait_for, source, seconds)"
    )
    sources = list(source) if isinstance(source, list | tuple | set | frozenset) else [source]
    if buffered := [each for each in sources if _has_buffered(each)]:
        return buffered
    is_loop = threading.get_ident() == life.home and not life.schedule.jobs
    ready: list[Any] = []

    def look(within: float) -> bool:
        until = time.monotonic() + within
        while not (ready or life.stop.asked):
            ready[:] = _readable(life.stop, sources, until - time.monotonic(), is_loop=is_loop)
            # A nudge alone does not end the wait: it may be about something else.
            if life.pace.forward is not None or time.monotonic() >= until:
                break
        return not ready and not life.stop.asked

    life.clock.wait(seconds, look)
    return ready


def _readable(stop: Stop, sources: list[Any], seconds: float, *, is_loop: bool) -> list[Any]:
    poll = select.poll()
    for source in sources:
        poll.register(source, select.POLLIN)
    for descriptor in stop.descriptors[: 2 if is_loop else 1]:
        poll.register(descriptor, select.POLLIN)
    events = dict(poll.poll(milliseconds(seconds)))
    if is_loop and stop.descriptors[1] in events:
        stop.wait_as_loop(0)  # reads what woke it
    if select.POLLNVAL in events.values():
        raise OSError(errno.EBADF, f"{os.strerror(errno.EBADF)}: wait_for() needs an open one")
    return [source for source in sources if _descriptor(source) in events]


def _descriptor(source: Any) -> int:
    return source if isinstance(source, int) else int(source.fileno())


def _has_buffered(source: Any) -> bool:
    """Whether a TLS socket has decrypted bytes, of which its descriptor says nothing."""
    pending = getattr(source, "pending", None)
    return callable(pending) and bool(pending())
