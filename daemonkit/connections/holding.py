"""When a thread closes its connections: between units of work, before a wait, at its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Generator, Iterator

from asgiref.sync import sync_to_async
from django.db.transaction import TransactionManagementError

from daemonkit.connections.thread import close, this_thread


def release_connections() -> Awaitable[None]:
    """Close the connections in the middle of a long unit of work.

    Call it before a long pause without queries; the next query opens a new connection. A caller's
    transaction is left alone. Raises ``TransactionManagementError`` inside an ``atomic()`` that the
    unit of work itself entered, because its rows would be lost.

    In a coroutine, use ``await release_connections()``: it closes the connections of the thread on
    which Django runs its queries. Elsewhere it closes this thread's, and need not be awaited.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _release()
        return _Released()
    return sync_to_async(_release)()


class _Released:
    """The result outside of a coroutine: an awaitable that is already done."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def _release() -> None:
    thread = this_thread()
    for link in thread.links:
        own, wrapper = thread.in_unit and not link.belongs_to_caller, link.wrapper()
        if own and wrapper is not None and wrapper.in_atomic_block:
            raise TransactionManagementError(
                f"release_connections() inside atomic() would lose the transaction on "
                f"{wrapper.alias!r}; call it outside of the block"
            )
    for link in thread.links:
        wrapper = link.wrapper()
        if wrapper is not None and not link.is_in_transaction(wrapper):
            close(link)


@contextlib.contextmanager
def kept_between_units() -> Iterator[None]:
    """With CONN_MAX_AGE=0, let units of work share a connection if there is no wait between them.
    For loops, which must call ``close_idle()`` before each wait."""
    thread = this_thread()
    outer, thread.keeps_between_units = thread.keeps_between_units, True
    try:
        yield
    finally:
        thread.keeps_between_units = outer
        close_idle(0)


def close_idle(seconds: float) -> None:
    """Call before waiting ``seconds``: closes connections whose CONN_MAX_AGE ends during the wait,
    because they would only count against the server's ``max_connections``."""
    until = time.monotonic() + seconds
    for link in this_thread().links:
        wrapper = link.wrapper()
        if wrapper is None or wrapper.connection is None or link.is_in_transaction(wrapper):
            continue
        max_age = wrapper.settings_dict["CONN_MAX_AGE"]
        if max_age == 0 or (wrapper.close_at is not None and wrapper.close_at <= until):
            close(link)


def until_next_close() -> float | None:
    """Seconds until ``close_idle(0)`` has something to close in this thread; None if never."""
    times = [
        wrapper.close_at
        for link in this_thread().links
        if (wrapper := link.wrapper()) is not None
        and wrapper.connection is not None
        and wrapper.close_at is not None
    ]
    return max(0.0, min(times) - time.monotonic()) if times else None


def close_all() -> None:
    """Close all connections of this thread, which is about to end. Otherwise they would stay open
    until the garbage collector runs."""
    for link in this_thread().links:
        close(link)
