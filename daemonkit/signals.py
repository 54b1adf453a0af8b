"""The moments of a daemon's life, as Django signals.

They announce; nothing depends on anybody listening. All are sent robustly: a listener that raises
is logged by Django and changes nothing. The sender is the daemon's class, and every signal carries
``daemon``, the instance. A listener that uses the database is a unit of work of its own: decorate
it with ``fresh_connections``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.dispatch import Signal

if TYPE_CHECKING:
    from daemonkit.command import BaseDaemonCommand

daemon_started = Signal()
"""A life begins; nothing is open yet."""

database_awaited = Signal()
"""``error``, ``seconds``: the database is away, or refuses us, before the daemon could open; the
next try is so many seconds ahead."""

daemon_ready = Signal()
"""``lifespan()`` is open."""

daemon_waiting = Signal()
"""``due``: the loop begins to wait for this ``Moment``."""

daemon_pulse = Signal()
"""The loop is alive: between ticks, and while it waits at least once every ``pulse`` seconds."""

iteration_started = Signal()
"""``number``, ``due``: a tick begins."""

iteration_finished = Signal()
"""``iteration``: a tick came to this."""

daemon_beat = Signal()
"""``message``: a tick that takes long has made progress."""

tick_overdue = Signal()
"""``seconds``, ``stack``: a tick is past its ``tick_timeout``; its connections are being cut.
Sent from another thread."""

daemon_stopping = Signal()
"""``reason``: somebody told the daemon to stop. May be sent from another thread."""

daemon_forced = Signal()
"""``reason``: the tick in flight would not end, and was cut. Sent from another thread."""

daemon_stopped = Signal()
"""``reason``: the life is over."""


def announce(signal: Signal, daemon: BaseDaemonCommand, **details: Any) -> None:
    """Send a signal about a daemon, robustly."""
    signal.send_robust(type(daemon), daemon=daemon, **details)
