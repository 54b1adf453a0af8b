"""Guarded writes: the database refuses writes of a former leader.

A process can be frozen between any two instructions, and continue while another process leads. A
check in that process cannot prevent its writes: only the database can refuse them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from daemonkit import conf

SHORTEST_LEASE = 1.0
"""Seconds. A shorter lease would be lost in any short pause of the server or the machine."""


class StaleEpoch(Exception):
    """Another process may lead now. The guarded block was rolled back."""


@contextlib.contextmanager
def guarded(
    daemon: str, epoch: int | None, *, seconds_left: Callable[[], float] = lambda: SHORTEST_LEASE
) -> Iterator[None]:
    """Open a transaction that is committed only if no newer leader exists.

    It is an ``atomic()`` on the alias ``DAEMONKIT["database"]``. At its end the row of the lease is
    locked and its epoch is compared, so that no other process can acquire the lease before the
    COMMIT. Use it in code that is given an epoch; in a tick, use ``self.guarded()``. Raises
    ``StaleEpoch``, and rolls back, if there is a newer epoch. Raises ``RuntimeError`` inside
    another ``atomic()``, which could commit later. An epoch of None, that of a daemon without a
    leader, is not guarded.

    ``seconds_left`` is called at the end. If the process freezes while it holds the row lock, the
    server closes its session after this many seconds.
    """
    from daemonkit.models import Lease  # models cannot be loaded before the apps are

    with _guarded(Lease._meta.db_table, daemon, epoch, seconds_left):
        yield


@contextlib.contextmanager
def guarded_by(
    claim: str, epoch: int | None, *, seconds_left: Callable[[], float] = lambda: SHORTEST_LEASE
) -> Iterator[None]:
    """Open a transaction that is committed only if no other process has acquired this claim.

    The same as ``guarded()``, for the name of a claim and the epoch in which the work began.
    """
    from daemonkit.models import Claim

    with _guarded(Claim._meta.db_table, claim, epoch, seconds_left):
        yield


@contextlib.contextmanager
def _guarded(
    table: str, name: str, epoch: int | None, seconds_left: Callable[[], float]
) -> Iterator[None]:
    alias = conf.database()
    with contextlib.ExitStack() as afterwards:
        with transaction.atomic(using=alias, durable=True):
            yield
            if epoch is None:
                return
            newest = _lock(connections[alias], table, name, seconds_left(), afterwards)
            if newest != epoch:
                raise StaleEpoch(
                    f"epoch {epoch} of {name} is over, {newest or 'none'} is the newest: "
                    f"the transaction was rolled back"
                )


def _lock(
    connection: BaseDatabaseWrapper,
    table: str,
    name: str,
    seconds: float,
    afterwards: contextlib.ExitStack,
) -> int | None:
    """Lock a row and return its epoch.

    Also sets a timeout: the server closes this session if it is idle for ``seconds`` while it holds
    the lock. Otherwise a frozen process could keep the row locked for ever.
    """
    row = f"FROM {table} WHERE name = %s FOR UPDATE"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            option, milliseconds = "idle_in_transaction_session_timeout", math.ceil(seconds * 1000)
            cursor.execute(
                f"SELECT epoch, set_config('{option}', '{max(100, milliseconds):d}', true) {row}",
                (name,),
            )
        elif connection.vendor == "sqlite":  # it has one writer at a time, and one host
            cursor.execute(f"UPDATE {table} SET epoch = epoch WHERE name = %s", (name,))
            cursor.execute(f"SELECT epoch FROM {table} WHERE name = %s", (name,))
        else:
            cursor.execute(
                f"SET @daemonkit_wait = @@session.wait_timeout, "
                f"SESSION wait_timeout = {max(1, math.ceil(seconds)):d}"
            )
            afterwards.callback(_restore_wait_timeout, connection, connection.connection)
            cursor.execute(f"SELECT epoch {row}", (name,))
        found = cursor.fetchone()
    return int(found[0]) if found else None


def _restore_wait_timeout(connection: BaseDatabaseWrapper, session: object) -> None:
    """Restore the timeout if that session is still open. If it is not, the commit still stands."""
    if connection.connection is session and not connection.errors_occurred:
        with contextlib.suppress(Error), connection.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = @daemonkit_wait")
