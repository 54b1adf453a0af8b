"""Cutting the database sessions of other threads from outside."""

from __future__ import annotations

from daemonkit.connections import connecting, refusals
from daemonkit.connections.thread import is_in_unit, known_sockets, others

_OVERDUE = (
    "daemonkit has cut the connections of this unit of work, which is past its time limit; "
    "it may make no other"
)


def install() -> None:
    """Have connections noted while they are made, so that they can be cut and refused.

    A process that is never cut, such as a web server, has Django's ``connect()`` as it is.
    """
    connecting.install()


def cut_connections(threads: set[int], *, for_good: bool) -> None:
    """Cut the database sessions of these threads (``threading.get_ident()``) from outside.

    Until their unit of work has ended they make no new ones. ``for_good``: until the process ends
    they connect no more, and send no statement. A statement or COMMIT that is on the wire has an
    unknown outcome.
    """
    install()
    if for_good:
        refusals.refuse_for_good(threads)
    else:
        refusals.refuse((thread for thread in threads if is_in_unit(thread)), _OVERDUE)
    _cut(threads, for_good=for_good)


def suspend_connections(threads: set[int], why: str) -> None:
    """Cut the sessions of these threads, and let them make none until ``resume_connections()`` or
    the end of their unit of work: each try raises ``OperationalError`` and says why."""
    install()
    refusals.refuse(threads, why)
    _cut(threads, for_good=False)


def resume_connections(thread: int) -> None:
    refusals.lift(thread)


def _cut(threads: set[int], *, for_good: bool) -> None:
    for thread in others(threads):
        thread.cut(for_good=for_good)
    connecting.cut_attempts(threads, known_sockets())
