"""The pauses of a daemon and its jobs: one reason to wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from daemonkit.clock import Moment

PAUSED = "paused"


class Pause(NamedTuple):
    """A pause of a job, or with "" of the whole daemon. ``until`` is when it ends, on the monotonic
    clock; infinity if only somebody can end it."""

    id: int
    job: str
    by: str
    why: str
    until: float

    def seconds(self, now: float) -> float | None:
        """How many seconds are left; None without an end."""
        return None if self.until == math.inf else max(0.0, self.until - now)


class Pauses:
    """The pauses that this process knows. The last ones that it has read hold while it lives.

    ``reason_to_wait()`` and ``holds()`` are called by the loop, the others by another thread.
    """

    def __init__(self) -> None:
        self._known: dict[int, Pause] = {}
        self._jobs: dict[str, float] = {}
        self.whole: Pause | None = None
        """The pause of the whole daemon, if there is one."""
        self._may_tick: Callable[[], bool] = lambda: False

    def reason_to_wait(self, now: Moment) -> str:
        """Return "paused" if no tick may start, unless somebody has ordered this very tick."""
        pause = self.whole
        is_over = pause is None or now.monotonic >= pause.until
        return "" if is_over or self._may_tick() else PAUSED

    def holds(self, job: str, now: Moment) -> bool:
        """Whether this job is paused by itself."""
        return now.monotonic < self._jobs.get(job, -math.inf)

    def let_pass(self, may_tick: Callable[[], bool]) -> None:
        """Let ticks begin in spite of a pause while ``may_tick()`` returns True."""
        self._may_tick = may_tick

    def change(self, pauses: Iterable[Pause]) -> tuple[list[Pause], list[Pause]]:
        """Let these pauses hold from now on. Returns those that are new, and those that are
        over."""
        before, self._known = self._known, {each.id: each for each in pauses}
        self.whole = next((each for each in self._known.values() if not each.job), None)
        self._jobs = {each.job: each.until for each in self._known.values() if each.job}
        begun = [each for number, each in self._known.items() if number not in before]
        ended = [each for number, each in before.items() if number not in self._known]
        return begun, ended

    def in_words(self) -> str:
        """The pauses of jobs, for the status."""
        return ", ".join(sorted(each.job for each in self._known.values() if each.job))
