"""Guarded writes: what a leader that is none any more cannot do.

A process can be stopped between any two of its instructions, and thawed when another leads. No
check of its own helps against that; only the database can refuse what it then sends.
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
    """Another term of leading has begun, or may: nothing of the guarded block took effect."""


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

    ``seconds_left`` is asked at the end: for how long the server should bear with a process that
    is stopped right between the two, holding the lock.
    """
    alias = conf.database()
    with contextlib.ExitStack() as afterwards:
        with transaction.atomic(using=alias, durable=True):
            yield
            if epoch is None:
                return
            newest = _lock(connections[alias], daemon, seconds_left(), afterwards)
            if newest != epoch:
                raise StaleEpoch(
                    f"epoch {epoch} of {daemon} is over, {newest or 'none'} is the newest: "
                    f"the transaction was rolled back"
                )


def _lock(
    connection: BaseDatabaseWrapper,
    daemon: str,
    seconds: float,
    afterwards: contextlib.ExitStack,
) -> int | None:
    """Lock the lease and read its epoch; and have the server drop this session if it falls silent
    for so many seconds with the lock in its hands, or nobody could lead until the process goes on.
    """
    from daemonkit.models import Lease  # models cannot be loaded before the apps are

    lease = f"FROM {Lease._meta.db_table} WHERE name = %s FOR UPDATE"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            name, milliseconds = "idle_in_transaction_session_timeout", math.ceil(seconds * 1000)
            cursor.execute(
                f"SELECT epoch, set_config('{name}', '{max(100, milliseconds):d}', true) {lease}",
                (daemon,),
            )
        else:
            cursor.execute(
                f"SET @daemonkit_wait = @@session.wait_timeout, "
                f"SESSION wait_timeout = {max(1, math.ceil(seconds)):d}"
            )
            afterwards.callback(_restore_wait_timeout, connection, connection.connection)
            cursor.execute(f"SELECT epoch {lease}", (daemon,))
        row = cursor.fetchone()
    return int(row[0]) if row else None


def _restore_wait_timeout(connection: BaseDatabaseWrapper, session: object) -> None:
    """In that session, if it is still there; what is committed stays so if it is not."""
    if connection.connection is session and not connection.errors_occurred:
        with contextlib.suppress(Error), connection.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = @daemonkit_wait")
