"""Guarded writes: the database refuses what a former leader sends.

A process can be stopped between any two of its instructions, and go on when another one leads. No
check of its own helps against that: only the database can refuse what it then sends.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from daemonkit import conf

SHORTEST_LEASE = 1.0
"""Seconds: a shorter lease would be lost to the next pause of a server or of the scheduler."""


class StaleEpoch(Exception):
    """Another process may lead by now: nothing of the guarded block took effect."""


@contextlib.contextmanager
def guarded(
    daemon: str, epoch: int | None, *, seconds_left: Callable[[], float] = lambda: SHORTEST_LEASE
) -> Iterator[None]:
    """A transaction that is committed only if this term of the daemon's leader is the newest.

    An ``atomic()`` on the alias ``DAEMONKIT["database"]``, at whose end the lease's row is locked
    and asked for its epoch: until the COMMIT nobody can take the lease. For code that was handed
    an epoch; in a tick, ``self.guarded()`` does it. Raises ``StaleEpoch``, and rolls back, if the
    epoch is an older one; ``RuntimeError`` inside another ``atomic()``, which could commit later.
    An epoch of None, that of a daemon without a leader, is not guarded.

    ``seconds_left`` is asked at the end. If the process is stopped while it holds the lock, the
    server drops its session after so many seconds.
    """
    from daemonkit.models import Lease  # models cannot be loaded before the apps are

    with _guarded(Lease._meta.db_table, daemon, epoch, seconds_left):
        yield


@contextlib.contextmanager
def guarded_by(
    claim: str, epoch: int | None, *, seconds_left: Callable[[], float] = lambda: SHORTEST_LEASE
) -> Iterator[None]:
    """A transaction that is committed only if nobody has taken this claim since.

    As ``guarded()``, for a claim: its name, and the epoch in which the work began.
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
    """Lock a row and read its epoch; and have the server drop this session if it falls silent for
    so many seconds while it holds the lock, or nobody could take the row until it goes on.
    """
    row = f"FROM {table} WHERE name = %s FOR UPDATE"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            option, milliseconds = "idle_in_transaction_session_timeout", math.ceil(seconds * 1000)
            cursor.execute(
                f"SELECT epoch, set_config('{option}', '{max(100, milliseconds):d}', true) {row}",
                (name,),
            )
        elif connection.vendor == "sqlite":  # one writer at a time; and its file is of one host
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
    """In that session, if it is still open. If not, the commit holds all the same."""
    if connection.connection is session and not connection.errors_occurred:
        with contextlib.suppress(Error), connection.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = @daemonkit_wait")
