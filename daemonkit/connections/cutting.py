"""Cut the database sessions of other threads."""

from __future__ import annotations

from daemonkit.connections import connecting, refusals
from daemonkit.connections.thread import is_in_unit, known_sockets, others

_OVERDUE = (
    "daemonkit has cut the connections of this unit of work, which is past its time limit; "
    "it cannot open new ones"
)


def install() -> None:
    """Track connections while they are being opened, so that they can be cut and refused.

    A process that never cuts connections, such as a web server, keeps Django's own ``connect()``.
    """
    connecting.install()


def cut_connections(threads: set[int], *, for_good: bool) -> None:
    """Cut the database sessions of these threads (``threading.get_ident()``).

    The threads cannot open new ones until their unit of work has ended. With ``for_good`` they can
    neither connect nor send a statement until the process ends. The outcome of a statement or
    COMMIT that is already on its way to the server is unknown.
    """
    install()
    if for_good:
        refusals.refuse_for_good(threads)
    else:
        refusals.refuse((thread for thread in threads if is_in_unit(thread)), _OVERDUE)
    _cut(threads, for_good=for_good)


def suspend_connections(threads: set[int], why: str) -> None:
    """Cut the sessions of these threads, and refuse new ones until ``resume_connections()`` or the
    end of their unit of work: each attempt raises ``OperationalError`` with ``why``."""
    install()
    refusals.refuse(threads, why)
    _cut(threads, for_good=False)


def resume_connections(thread: int) -> None:
    refusals.lift(thread)


def _cut(threads: set[int], *, for_good: bool) -> None:
    for thread in others(threads):
        thread.cut(for_good=for_good)
    connecting.cut_attempts(threads, known_sockets())
