"""The events of a daemon's life, as Django signals.

All are sent robustly: Django logs the exceptions of a receiver, and they do not affect the daemon.
The sender is the daemon's class, and every signal carries ``daemon``, the instance. A supervisor
sends the same signals for itself. A receiver that uses the database is a unit of work of its own:
decorate it with ``fresh_connections``.
"""

from __future__ import annotations

from typing import Any, Protocol

from django.dispatch import Signal


class Lives(Protocol):
    """The limits of one run that listeners use, in seconds."""

    @property
    def pulse(self) -> float: ...
    @property
    def stop_timeout(self) -> float: ...
    @property
    def tick_timeout(self) -> float | None: ...


class Announcer(Protocol):
    """A daemon or a supervisor, which sends these signals."""

    @property
    def name(self) -> str: ...
    @property
    def life(self) -> Lives: ...


daemon_started = Signal(use_caching=True)
"""The daemon starts; nothing is open yet."""

database_awaited = Signal(use_caching=True)
"""``error``, ``seconds``: the daemon cannot open because the database is away or refuses the
connection; it tries again after ``seconds``."""

migrations_awaited = Signal(use_caching=True)
"""``migrations``: the daemon cannot open because migrations are not applied: "shop.0004_price and 2
more". Sent when the wait begins, and when others are pending than before."""

daemon_ready = Signal(use_caching=True)
"""``lifespan()`` is open."""

daemon_waiting = Signal(use_caching=True)
"""``due``: the loop begins to wait for this ``Moment``."""

daemon_pulse = Signal(use_caching=True)
"""The loop is alive. Sent between ticks, and at least once every ``pulse`` seconds of a wait."""

iteration_started = Signal(use_caching=True)
"""``number``, ``due``: a tick begins."""

iteration_finished = Signal(use_caching=True)
"""``iteration``: a tick has ended, with this outcome."""

iteration_failed = Signal(use_caching=True)
"""``iteration``: a tick has failed. Sent in addition to ``iteration_finished``, for receivers that
do not need the many ticks that succeed."""

daemon_beat = Signal(use_caching=True)
"""``message``, ``job``: a long tick, or a run of this job, has made progress. ``job`` is "" for
``tick()``, and outside of ticks and runs."""

tick_prolonged = Signal(use_caching=True)
"""``job``: a tick, or a run of this job ("" for ``tick()``), has lasted one ``pulse``. Sent once,
from another thread."""

tick_overdue = Signal(use_caching=True)
"""``seconds``, ``stack``, ``job``: a tick, or a run of this job ("" for ``tick()``), is past its
``tick_timeout``; its connections are being cut. Sent from another thread."""

run_skipped = Signal(use_caching=True)
"""``job``, ``due``, ``reason``: a due ``Moment`` of a job passed without a run, because of an
"overlap", its "grace" or its "back-off", because the process was "down", "paused" or "not leader",
because the "ledger" could not be written, or for the text of ``self.skip()``."""

row_dead = Signal(use_caching=True)
"""``key``, ``attempts``, ``error``: a row of a poller has become a dead letter."""

standing_by = Signal(use_caching=True)
"""``leader``: another process, which has this name, leads and ticks."""

leadership_gained = Signal(use_caching=True)
"""``epoch``: from now on this process leads, and ticks."""

leadership_lost = Signal(use_caching=True)
"""``reason``: this process no longer leads; its running ticks are being cut."""

daemon_status = Signal(use_caching=True)
"""``text``: the status in one line, which replaces the one made from the other signals."""

daemon_paused = Signal(use_caching=True)
"""``job`` ("": all), ``by``, ``why``, ``seconds`` (None: no end): a pause. From another thread."""

daemon_resumed = Signal(use_caching=True)
"""``job`` ("": all): a pause is over. Sent from another thread."""

limit_reached = Signal(use_caching=True)
"""``reason``: a worker has reached its ``max_ticks``, ``max_seconds`` or ``max_memory``, and waits
for its supervisor to replace it. Sent at least once every ``pulse`` seconds."""

reload_requested = Signal(use_caching=True)
"""``reason``: a reload was requested; the new code is being tried. May be sent from another
thread."""

reload_failed = Signal(use_caching=True)
"""``reason``: the new code does not load; the daemon continues with the old code. May be sent from
another thread."""

daemon_reloading = Signal(use_caching=True)
"""``reason``: like ``daemon_stopping``, but the process then re-executes itself. May be sent from
another thread."""

daemon_stopping = Signal(use_caching=True)
"""``reason``: a stop was requested. May be sent from another thread."""

daemon_forced = Signal(use_caching=True)
"""``reason``: the tick in flight did not end in time, and was cut. Sent from another thread."""

daemon_stopped = Signal(use_caching=True)
"""``reason``, ``ending``: the daemon has stopped, for this reason in words and as an ``Ending``."""


def announce(signal: Signal, daemon: Announcer, **details: Any) -> None:
    """Send a signal about a daemon, robustly.

    Code that runs in every tick checks ``signal.receivers`` before it calls this: most signals have
    no receivers, and a loop may tick ten thousand times a second.
    """
    signal.send_robust(type(daemon), daemon=daemon, **details)
