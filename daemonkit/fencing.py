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
from daemonkit.lease import SHORTEST


class StaleEpoch(Exception):
    """Another term of leading has begun, or may: nothing of the guarded block took effect."""


@contextlib.contextmanager
def guarded(
    daemon: str, epoch: int, *, seconds_left: Callable[[], float] = lambda: SHORTEST
) -> Iterator[None]:
    """A transaction that is committed only if this term of the daemon's leader is the newest.

    An ``atomic()`` on the alias ``DAEMONKIT["database"]``, at whose end the lease's row is locked
    and asked for its epoch: until the COMMIT nobody can take the lease. For code that was handed
    an epoch; in a tick, ``self.guarded()`` does it. Raises ``StaleEpoch``, and rolls back, if the
    epoch is an older one; ``RuntimeError`` inside another ``atomic()``, which could commit later.

    ``seconds_left`` is asked at the end: for how long the server should bear with a process that
    is stopped right between the two, holding the lock.
    """
    alias = conf.database()
    with contextlib.ExitStack() as afterwards:
        with transaction.atomic(using=alias, durable=True):
            yield
            connection = connections[alias]
            _do_not_hold_the_lock_for_long(connection, seconds_left(), afterwards)
            newest = _lock(alias, daemon)
            if newest != epoch:
                raise StaleEpoch(
                    f"epoch {epoch} of {daemon} is over, {newest or 'none'} is the newest: "
                    f"the transaction was rolled back"
                )


def _lock(alias: str, daemon: str) -> int | None:
    from daemonkit.models import Lease  # models cannot be loaded before the apps are

    rows = Lease.objects.using(alias).select_for_update().filter(name=daemon)
    newest: int | None = rows.values_list("epoch", flat=True).first()
    return newest


def _do_not_hold_the_lock_for_long(
    connection: BaseDatabaseWrapper, seconds: float, afterwards: contextlib.ExitStack
) -> None:
    """Have the server drop this session if it says nothing more: or nobody could lead until the
    process goes on."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            milliseconds = max(100, math.ceil(seconds * 1000))
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds:d}")
        elif connection.vendor == "mysql":
            cursor.execute(
                f"SET @daemonkit_wait = @@session.wait_timeout, "
                f"SESSION wait_timeout = {max(1, math.ceil(seconds)):d}"
            )
            afterwards.callback(_restore_wait_timeout, connection, connection.connection)


def _restore_wait_timeout(connection: BaseDatabaseWrapper, session: object) -> None:
    """In that session, if it is still there; what is committed stays so if it is not."""
    if connection.connection is session and not connection.errors_occurred:
        with contextlib.suppress(Error), connection.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = @daemonkit_wait")
