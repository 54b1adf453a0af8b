"""psycopg_pool under Django: which pool has lent a connection, and whether what it lends is alive.

Others pool connections, too, and call an attribute ``_pool``. So a pool is known by its class.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

Pool: TypeAlias = Any
"""A ``psycopg_pool.ConnectionPool``. The package may not be installed."""


def pool_of(raw: Any) -> Pool | None:
    """The pool that has lent a driver's connection, or None."""
    pool_class = getattr(sys.modules.get("psycopg_pool"), "ConnectionPool", None)
    pool = getattr(raw, "_pool", None)
    return pool if pool_class is not None and isinstance(pool, pool_class) else None


def take_back(pool: Pool, raw: Any) -> None:
    """Close a connection that a pool has lent. The pool replaces it; it counts what it has lent."""
    for step in (raw.close, functools.partial(pool.putconn, raw)):
        with contextlib.suppress(Exception):
            step()


def test_before_lending(pool: Pool, is_due: Callable[[Any], bool]) -> bool:
    """Have a pool test each connection for which ``is_due()``, before anybody else sees it.

    Django has the pool do that only where CONN_HEALTH_CHECKS is on. The pool then waits for seconds
    between two tries, and its test cannot be cut from outside. Returns False if that was done
    before.
    """
    if "getconn" in vars(pool):
        return False
    if getattr(pool, "_check", None) == pool.check_connection:
        pool._check = lambda raw: is_due(raw) or pool.check_connection(raw)
    pool.getconn = functools.partial(_lend, pool, is_due)
    return True


def is_alive(pool: Pool, raw: Any) -> bool:
    """Whether a connection answers. Costs a round trip."""
    try:
        pool.check_connection(raw)
    except Exception:
        return False
    return True


def _lend(pool: Pool, is_due: Callable[[Any], bool], timeout: float | None = None) -> Any:
    lend = functools.partial(type(pool).getconn, pool, timeout)
    raw = lend()
    for _ in range(pool.max_size):
        try:
            if not is_due(raw) or is_alive(pool, raw):
                return raw
        except BaseException:
            take_back(pool, raw)
            raise
        take_back(pool, raw)
        raw = lend()
    return raw
