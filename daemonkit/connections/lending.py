"""Lending by psycopg_pool under Django: whether what it lends is alive, and that it is returned."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from daemonkit.connections.raw_connection import pool_of
from daemonkit.connections.wrappers import Wrapper

Pool: TypeAlias = Any
"""A ``psycopg_pool.ConnectionPool``. The package may not be installed."""


def take_back(raw: Any) -> None:
    """Close a connection that a pool has lent, and give it back: the pool then replaces it."""
    with contextlib.suppress(Exception):
        raw.close()
    with contextlib.suppress(Exception):
        pool_of(raw).putconn(raw)


class Borrower(Protocol):
    """A thread that borrows from pools."""

    lent: Any
    """What a pool has lent and no wrapper holds yet."""

    def give_back_lent(self) -> None: ...

    def is_test_due(self, raw: Any) -> bool: ...


def is_lent_alive(wrapper: Wrapper, pool: Pool, this_borrower: Callable[[], Borrower]) -> bool:
    """Have the pool test what it lends from now on. What it lent before that is tested here."""
    is_first = test_before_lending(pool, this_borrower)
    raw = wrapper.connection
    return not is_first or not this_borrower().is_test_due(raw) or is_alive(pool, raw)


def test_before_lending(pool: Pool, this_borrower: Callable[[], Borrower]) -> bool:
    """Have a pool test each connection for which that is due, before anybody else sees it.

    Django has the pool do that only where CONN_HEALTH_CHECKS is on. The pool then waits for seconds
    between two tries, and its test cannot be cut from outside. Returns False if that was done
    before.
    """
    if "getconn" in vars(pool):
        return False
    if getattr(pool, "_check", None) == pool.check_connection:
        pool._check = lambda raw: this_borrower().is_test_due(raw) or pool.check_connection(raw)
    returned: weakref.WeakSet[Any] = weakref.WeakSet()
    pool.getconn = functools.partial(_lend, pool, returned, this_borrower)
    pool.putconn = functools.partial(_take, pool, returned)
    return True


def is_alive(pool: Pool, raw: Any) -> bool:
    """Whether a connection answers. Costs a round trip."""
    try:
        pool.check_connection(raw)
    except Exception:
        return False
    return True


def _lend(
    pool: Pool,
    returned: weakref.WeakSet[Any],
    this_borrower: Callable[[], Borrower],
    timeout: float | None = None,
) -> Any:
    """Stands in the place of ``getconn()``."""
    borrower = this_borrower()
    borrower.give_back_lent()  # an interruption may have left one
    for tries_left in range(pool.max_size, -1, -1):
        borrower.lent = raw = type(pool).getconn(pool, timeout)
        returned.discard(raw)
        if not tries_left or not borrower.is_test_due(raw) or is_alive(pool, raw):
            break
        take_back(raw)
    return raw


def _take(pool: Pool, returned: weakref.WeakSet[Any], raw: Any) -> None:
    """Stands in the place of ``putconn()``. A second return of one connection does nothing.

    After an interruption it cannot be known who has returned it, and for one that is broken the
    pool would make two others.
    """
    if raw not in returned:
        try:
            returned.add(raw)
        finally:
            type(pool).putconn(pool, raw)
