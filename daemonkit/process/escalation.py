"""From the first request to stop to the end by force: asked, forced, and at last left."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from daemonkit.process.forced_end import ForcedEnd, in_thread
from daemonkit.process.stopping import Stop
from daemonkit.process.tick_limits import UNWIND_TIME
from daemonkit.process.watched import Unattended, Watched

ABANDONED_TIME = 0.8
"""Seconds that a worker's tick in flight may take once the supervisor is gone, and seconds to
unwind after its cut. They are few, because a new supervisor may already be starting a
replacement."""

DUPLICATE_TIME = 0.05
"""Seconds after the first signal in which a second one does not count: ``timeout(1)`` and some
supervisors signal a process and then its group, which delivers the same signal twice."""

DUPLICATE_TIME_AT_EXIT = 1.0
"""The same while the interpreter shuts down. No tick is left to cut then, so repeated signals
should not change the exit code."""


class Escalation:
    """Ends a process, step by step. ``call`` calls a method of what is watched.

    ``hold`` holds the main thread in a signal handler, while another thread ends the process."""

    def __init__(
        self,
        stop: Stop,
        watched: Watched,
        call: Callable[..., None],
        hold: Callable[[], None],
    ) -> None:
        self._stop, self._call, self._hold = stop, call, hold
        self.watch(watched)
        self.starts_children = True
        """Whether the children of this process belong to the project's code, and end with it."""
        self.leaves = False
        """Whether it ends the process itself, if a forced end takes too long."""
        self.awaits_process_end = False
        """Whether nothing is left to do but to wait for the end of the interpreter."""
        self._process_ends_since = math.inf
        self._abandoned_at = self._leave_at = math.inf
        self._home = threading.get_ident()
        self._forced_end = ForcedEnd()

    def watch(self, watched: Watched) -> None:
        self._watched = self._last_life = watched
        self._stop_timeout = watched.stop_timeout

    def watch_again(self, outer: Watched) -> None:
        self._watched = outer
        if not isinstance(outer, Unattended):
            self._last_life = outer

    # The steps

    def ask(self, name: str) -> None:
        """The first step: the tick in flight finishes."""
        self._stop.ask(name)
        self._stop.reason, self._stop.asked_at = name, time.monotonic()
        self._call(self._watched.on_asked, name)

    def ask_again(self, name: str) -> None:
        """A further signal. One that comes too soon is the same one, delivered twice."""
        if time.monotonic() - self._stop.asked_at > self._duplicate_time:
            self.force(f"a second signal, {name}")

    def abandon(self) -> None:
        """Force the end soon: the supervisor is gone."""
        self._abandoned_at = time.monotonic() + ABANDONED_TIME

    def force(self, reason: str) -> None:
        """The second step: connections are cut, and what does not unwind is left."""
        stop = self._stop
        if stop.forced:
            return
        if self._process_ends_since < math.inf:
            self._leave(reason)
        stop.forced = reason
        stop.reloading = False
        running = list(stop.ticks.values())
        stop.cut_short = tuple(sorted(tick.name for tick in running if tick.name))
        stop.ask(reason)
        if self.leaves:
            self._leave_at = time.monotonic() + UNWIND_TIME
        self._watched.cut({self._home, *list(stop.ticks)}, for_good=True)
        self._call(self._watched.on_forced, reason)
        if self.starts_children:
            in_thread(self._forced_end.terminate_children)

    def end_children(self) -> None:
        """At a forced end: wait for this process's children to end, then kill the rest."""
        if self.starts_children:
            self._forced_end.end_children()

    def _leave(self, reason: str = "") -> NoReturn:
        """The last step: end the process. A ``reason`` that was not announced yet is logged."""
        self._hold()
        if reason:
            in_thread(self._last_life.on_left, reason)
            self.end_children()
        self._forced_end.leave()

    # Its deadlines

    def let_process_end(self, *, now: bool) -> None:
        self.awaits_process_end = True
        if now:
            self._process_ends_since = min(self._process_ends_since, time.monotonic())

    def next_deadline(self) -> float:
        """When the next step is due, on the monotonic clock."""
        return min(self._stop_deadline(), self._abandoned_at, self._leave_at)

    def check_deadlines(self, now: float) -> None:
        """Take the step that is due, if any."""
        if now >= self._leave_at:
            self._leave()
        if self.awaits_process_end and not threading.main_thread().is_alive():
            self._process_ends_since = min(self._process_ends_since, now)
        if now >= self._abandoned_at:
            self._abandoned_at = math.inf
            self.force("the supervisor is gone")
            self._leave_at = min(self._leave_at, now + ABANDONED_TIME)
        if now >= self._stop_deadline():
            reason = f"stop_timeout of {self._stop_timeout:g} s ran out"
            self.force(reason + self._blockers())

    @property
    def _duplicate_time(self) -> float:
        """Seconds after the first signal in which another one does not count."""
        if self._process_ends_since < math.inf:
            return DUPLICATE_TIME_AT_EXIT
        return math.inf if self._last_life.is_over else DUPLICATE_TIME

    def _stop_deadline(self) -> float:
        """When the end is forced: ``stop_timeout`` after the stop was requested, after the last
        beat, or after the life began to end by itself."""
        stop, process_ends = self._stop, self._process_ends_since
        if stop.forced:
            return math.inf
        since = stop.asked_at if stop.asked else min(self._watched.ending_since, process_ends)
        deadline = max(since, stop.touched) + self._stop_timeout
        return deadline if process_ends == math.inf else max(deadline, process_ends + UNWIND_TIME)

    def _blockers(self) -> str:
        """Says which thread or child does not end; "" if it is a tick or a worker."""
        is_known = self._stop.ticks or not self.starts_children
        return "" if is_known else f" for {self._forced_end.blockers()}"
