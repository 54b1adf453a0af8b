"""Threads that may not open a database connection, and the reasons.

A unit of work whose connections were cut would reconnect: at the end of ``atomic()``, or when
Django finds its connection unusable. If the network is down, it would hang in that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from django.db import OperationalError

_FOR_GOOD = "daemonkit makes no new connection: the process is being stopped"
reasons: dict[int, str] = {}
"""By thread. It is nearly always empty; then ``lift_here()`` need not be called."""

_stopped: set[int] = set()


def refuse(threads: Iterable[int], why: str) -> None:
    """Refuse connections to these threads (``threading.get_ident()``) until their unit of work
    ends: each attempt raises ``OperationalError`` with ``why``."""
    reasons.update(dict.fromkeys(threads, why))


def refuse_for_good(threads: Iterable[int]) -> None:
    """Refuse connections to these threads until the process ends."""
    _stopped.update(threads)


def lift(thread: int) -> None:
    """Let a thread connect again."""
    reasons.pop(thread, None)


def lift_here() -> None:
    """Let this thread connect again. Called when a unit of work begins and when it has ended."""
    lift(threading.get_ident())


def check() -> None:
    """Raise ``OperationalError`` if this thread may not connect."""
    thread = threading.get_ident()
    why = _FOR_GOOD if thread in _stopped else reasons.get(thread)
    if why is not None:
        raise OperationalError(why)
