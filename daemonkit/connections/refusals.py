"""Threads that may make no database connection, and why.

A unit of work whose connections were cut would connect anew: in the end of ``atomic()``, or when
Django finds its connection unusable. If the network is what it was cut for, it would hang there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from django.db import OperationalError

_FOR_GOOD = "daemonkit makes no new connection: the process is being stopped"
reasons: dict[int, str] = {}
"""By thread. Empty, as nearly always, nothing has to be lifted."""

_stopped: set[int] = set()


def refuse(threads: Iterable[int], why: str) -> None:
    """Let these threads (``threading.get_ident()``) connect no more until their unit of work ends:
    each try raises ``OperationalError`` and says why."""
    reasons.update(dict.fromkeys(threads, why))


def refuse_for_good(threads: Iterable[int]) -> None:
    """Let these threads connect no more until the process ends."""
    _stopped.update(threads)


def lift(thread: int) -> None:
    """Let a thread connect again."""
    reasons.pop(thread, None)


def lift_here() -> None:
    """Let this thread connect again: a unit of work begins, or has ended."""
    lift(threading.get_ident())


def check() -> None:
    """Raise ``OperationalError`` if this thread may not connect."""
    thread = threading.get_ident()
    why = _FOR_GOOD if thread in _stopped else reasons.get(thread)
    if why is not None:
        raise OperationalError(why)
