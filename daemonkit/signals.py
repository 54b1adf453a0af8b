"""The moments of a daemon's life, as Django signals.

They announce; nothing depends on anybody listening. All are sent robustly: a listener that raises
is logged by Django and changes nothing. The sender is the daemon's class, and every signal carries
``daemon``, the instance; a supervisor of several announces its own moments in the same way. A
listener that uses the database is a unit of work of its own: decorate
it with ``fresh_connections``.
"""

from __future__ import annotations

from typing import Any, Protocol

from django.dispatch import Signal


class Lives(Protocol):
    """What holds for one run, as far as listeners ask. Times are in seconds."""

    @property
    def pulse(self) -> float: ...
    @property
    def stop_timeout(self) -> float: ...
    @property
    def tick_timeout(self) -> float | None: ...


class Announcer(Protocol):
    """Whose moments these are: a daemon's, or a supervisor's."""

    @property
    def name(self) -> str: ...
    @property
    def life(self) -> Lives: ...


daemon_started = Signal(use_caching=True)
"""A life begins; nothing is open yet."""

database_awaited = Signal(use_caching=True)
"""``error``, ``seconds``: the database is away, or refuses us, before the daemon could open; the
next try is so many seconds ahead."""

daemon_ready = Signal(use_caching=True)
"""``lifespan()`` is open."""

daemon_waiting = Signal(use_caching=True)
"""``due``: the loop begins to wait for this ``Moment``."""

daemon_pulse = Signal(use_caching=True)
"""The loop is alive: between ticks, and while it waits at least once every ``pulse`` seconds."""

iteration_started = Signal(use_caching=True)
"""``number``, ``due``: a tick begins."""

iteration_finished = Signal(use_caching=True)
"""``iteration``: a tick came to this."""

iteration_failed = Signal(use_caching=True)
"""``iteration``: the same, sent besides when the tick has failed. For those to whom the thousands
that went well are nothing."""

daemon_beat = Signal(use_caching=True)
"""``message``, ``job``: a tick that takes long, or a run of this job, has made progress; ``job`` is
"" for ``tick()``, and for who is neither."""

tick_prolonged = Signal(use_caching=True)
"""``job``: a tick, or a run of this job ("" for ``tick()``), has lasted one ``pulse``. Sent once,
from another thread."""

tick_overdue = Signal(use_caching=True)
"""``seconds``, ``stack``, ``job``: a tick, or a run of this job ("" for ``tick()``), is past its
``tick_timeout``; its connections are being cut. Sent from another thread."""

run_skipped = Signal(use_caching=True)
"""``job``, ``due``, ``reason``: a due ``Moment`` of a job passed without a run, because of an
"overlap", its "grace" or its "back-off", because the process was "down", "paused" or "not leader",
or because the "ledger" could not be written."""

standing_by = Signal(use_caching=True)
"""``leader``: another process leads and ticks, the one that calls itself so."""

leadership_gained = Signal(use_caching=True)
"""``epoch``: from now on this process leads, and ticks."""

leadership_lost = Signal(use_caching=True)
"""``reason``: this process leads no more; its running ticks are being cut."""

daemon_status = Signal(use_caching=True)
"""``text``: what to say of it in one line, instead of what its other moments tell."""

limit_reached = Signal(use_caching=True)
"""``reason``: a worker has reached its ``max_ticks``, ``max_seconds`` or ``max_memory``, and waits
for its supervisor to replace it. Sent at least once every ``pulse`` seconds."""

reload_requested = Signal(use_caching=True)
"""``reason``: somebody told the daemon to take new code, which is being tried. May be sent from
another thread."""

reload_failed = Signal(use_caching=True)
"""``reason``: the new code does not load; the daemon goes on with the old one. May be sent from
another thread."""

daemon_reloading = Signal(use_caching=True)
"""``reason``: as ``daemon_stopping``, but then the process executes itself anew. May be sent from
another thread."""

daemon_stopping = Signal(use_caching=True)
"""``reason``: somebody told the daemon to stop. May be sent from another thread."""

daemon_forced = Signal(use_caching=True)
"""``reason``: the tick in flight would not end, and was cut. Sent from another thread."""

daemon_stopped = Signal(use_caching=True)
"""``reason``, ``ending``: the life is over, in words and as an ``Ending``."""


def announce(signal: Signal, daemon: Announcer, **details: Any) -> None:
    """Send a signal about a daemon, robustly.

    What every tick has to say asks for ``signal.receivers`` before it calls this: most signals have
    none, and a loop may tick ten thousand times a second.
    """
    signal.send_robust(type(daemon), daemon=daemon, **details)
