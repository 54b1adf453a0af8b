"""The time limits of the ticks that run: what the watcher does at each of them."""

from __future__ import annotations

from collections.abc import Callable

from daemonkit.process.stopping import Stop
from daemonkit.process.watched import Watched

UNWIND_TIME = 2.0
"""Seconds for ``finally`` blocks and context managers to run: between the cut and the end of the
process, and between the cancelling of a task and the cut."""


class TickLimits:
    """Prolonged after a pulse, overdue at its ``tick_timeout``, then cut, and at last given up."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def next_look(self, watched: Watched) -> list[float]:
        """When each running tick must be looked at next, on the monotonic clock."""
        return [tick.next_look(watched.pulse) for tick in list(self._stop.ticks.values())]

    def enforce(self, watched: Watched, now: float, call: Callable[..., None]) -> str:
        """Take the next step with each tick whose time it is. Returns why the process must end: a
        tick did not return when it was cut; or "".

        ``call`` calls a method of ``watched``, and does not wait for it if there is a thread."""
        for tick in list(self._stop.ticks.values()):
            if now >= tick.began + watched.pulse and not tick.is_prolonged:
                tick.is_prolonged = True
                call(watched.on_prolonged, tick)
            if now < tick.next_step(watched.pulse) or self._stop.forced:
                continue
            if tick.overdue_since is None:
                tick.overdue_since = now
                call(watched.on_overdue, tick)
                # A task is cancelled before the cut.
                tick.cut_at = now + UNWIND_TIME if watched.cancel(tick) else now
            if now < tick.cut_at:
                continue
            if tick.is_cut:
                which = f"job {tick.name}" if tick.name else "a tick"
                return f"{which} past its tick_timeout did not return when it was cut"
            tick.is_cut = True
            watched.cut({tick.thread, *tuple(tick.helpers)}, for_good=False)
        return ""
