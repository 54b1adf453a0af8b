"""psycopg_pool under Django: test each connection that it lends, and return each one once.

A loan is an object that a connection has as an attribute while it is lent, and None afterwards.
Setting an attribute is one step: no signal handler can run in the middle of it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from daemonkit.connections.wrappers import Wrapper

Pool: TypeAlias = Any
"""A ``psycopg_pool.ConnectionPool``. The package may not be installed."""


def take_back(raw: Any, loan: object) -> None:
    """Close a lent connection and return it, so that the pool replaces it. Does nothing if this
    loan has ended. Never raises an ``Exception``."""
    if getattr(raw, "daemonkit_loan", None) is loan:
        with contextlib.suppress(Exception):
            raw.close()
        with contextlib.suppress(Exception):
            raw._pool.putconn(raw)


class Borrower(Protocol):
    """A thread that borrows from pools."""

    lent: Any
    """A connection that a pool has lent and that no wrapper holds yet."""
    loan: object
    """The loan of that connection."""

    def give_back_lent(self) -> None: ...

    def is_test_due(self, raw: Any) -> bool: ...


def is_lent_alive(wrapper: Wrapper, pool: Pool, this_borrower: Callable[[], Borrower]) -> bool:
    """Make the pool test each connection that it lends. Test the wrapper's here, if it was lent
    before. Return whether it is alive."""
    is_first = test_before_lending(pool, this_borrower)
    raw = wrapper.connection
    return not is_first or not this_borrower().is_test_due(raw) or is_alive(pool, raw)


def test_before_lending(pool: Pool, this_borrower: Callable[[], Borrower]) -> bool:
    """Make a pool test each connection for which ``is_test_due()`` is true, before it lends it.

    With CONN_HEALTH_CHECKS Django makes the pool test its connections itself. But then the pool
    waits for seconds between two attempts, and another thread cannot cut its test. Returns False if
    the pool was already changed.
    """
    if "getconn" in vars(pool):
        return False
    if getattr(pool, "_check", None) == pool.check_connection:
        pool._check = lambda raw: this_borrower().is_test_due(raw) or pool.check_connection(raw)
    pool.getconn = functools.partial(_lend, pool, this_borrower)
    pool.putconn = functools.partial(_take, pool)
    return True


def is_alive(pool: Pool, raw: Any) -> bool:
    """Whether a connection answers. Costs a round trip."""
    try:
        pool.check_connection(raw)
    except Exception:
        return False
    return True


def _lend(pool: Pool, this_borrower: Callable[[], Borrower], timeout: float | None = None) -> Any:
    """Replaces ``getconn()``."""
    borrower = this_borrower()
    borrower.give_back_lent()  # left by an interruption
    for tries_left in range(pool.max_size, -1, -1):
        borrower.loan = loan = object()
        borrower.lent = raw = type(pool).getconn(pool, timeout)
        raw.daemonkit_loan = loan
        if not tries_left or not borrower.is_test_due(raw) or is_alive(pool, raw):
            break
        take_back(raw, loan)
    return raw


def _take(pool: Pool, raw: Any) -> None:
    """Replaces ``putconn()``. Returning a connection a second time does nothing.

    After an interruption it is unknown whether the connection was returned. If a broken one were
    returned twice, the pool would replace it twice.
    """
    if getattr(raw, "daemonkit_loan", raw) is not None:  # missing: lent before we were here
        putconn = type(pool).putconn
        raw.daemonkit_loan = None
        putconn(pool, raw)
