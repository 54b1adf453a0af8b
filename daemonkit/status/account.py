"""What the row of a process says: taken from the life at a pulse, not noted in each tick."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol

from daemonkit import conf
from daemonkit.clock import Clock, Moment
from daemonkit.daemon import Daemon
from daemonkit.errors import one_line
from daemonkit.iteration import Iteration
from daemonkit.pace import Pace
from daemonkit.process.stopping import Stop, Tick
from daemonkit.schedules.durations import duration_text
from daemonkit.settings.settings import Settings
from daemonkit.status.pauses import PAUSED, Pauses

TEXT_LENGTH = 300
"""Characters of a text in a row."""

TREND_LENGTH = 8
"""Of how many pulses the row keeps the duration of the last tick."""

STUCK_PULSES = 1.5
"""A loop that has not come round for so many pulses, without a tick, gives no sign of life."""


class State(StrEnum):
    """What a process does. ``SILENT`` is the reader's word, for a row that is too old."""

    STARTING = "starting"
    WAITING = "waiting"
    TICKING = "ticking"
    SERVING = "serving"
    STANDING_BY = "standing by"
    PAUSED = "paused"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    ENDED = "ended"
    SILENT = "silent"


class Life(Protocol):
    """The life that is reported."""

    daemon: Daemon
    last: Iteration | None
    due: Moment | None
    pace: Pace
    clock: Clock
    settings: Settings
    pulse: float
    pulse_at: float

    @property
    def stop(self) -> Stop: ...


class Job(Protocol):
    """A job with its runs so far."""

    runs: int


class Account:
    """Collects what is rare, and asks the life for the rest. Times are monotonic seconds."""

    def __init__(self, life: Life, pauses: Pauses, begun: float) -> None:
        self._life, self._pauses, self._begun = life, pauses, begun
        self.is_ready = False
        self.jobs: Sequence[Job] | None = None
        """The jobs of a daemon that has some."""
        self.awaited = self.leader = ""
        """What it waits for before it is ready, and who leads in its place."""
        self.backlog: int | None = None
        self.dead_letters: int | None = None
        """What a poller still has to do, and what it has given up."""
        self.failures = 0
        self.last_error = ""
        self.success_at: float | None = None
        self._state, self._since = State.STARTING, begun
        self._seen: Iteration | None = None
        self._trend: deque[float] = deque(maxlen=TREND_LENGTH)

    def failed(self, iteration: Iteration) -> None:
        """Note a failed tick. The success before it is the last one of the life by now."""
        self._note_success(self._life.last)
        self.failures += 1
        error, stored = iteration.error, conf.store_errors()
        if error is not None:
            text = {"text": one_line(error), "class": type(error).__name__}.get(stored, "")
            self.last_error = text[:TEXT_LENGTH]

    def _note_success(self, last: Iteration | None) -> None:
        if last is not None and last.error is None:
            self.success_at = max(self.success_at or 0.0, last.ended.monotonic)

    def count_ticks(self) -> int:
        """How many ticks have ended, or how many runs of jobs have begun."""
        if self.jobs is not None:
            return sum(job.runs for job in self.jobs)
        return self._life.last.number if self._life.last else 0

    def other_reason_to_wait(self) -> str:
        """Why no tick may start now, apart from a pause."""
        now = self._life.clock.moment()
        others = (each for each in self._life.pace.reasons if each is not self._pauses)
        return next(filter(None, (each.reason_to_wait(now) for each in others)), "")

    def is_alive(self, now: float) -> bool:
        """Whether the loop gives a sign of life: a stuck one must look stuck."""
        life = self._life
        if not self.is_ready or life.stop.asked:
            return True
        ticks = self._ticks()
        if any(tick.overdue_since is not None for tick in ticks):
            return False
        if ticks and not life.settings.has_jobs:
            return True
        seen_at = max(life.pulse_at, life.stop.touched)  # a server may beat instead
        return now - seen_at <= STUCK_PULSES * life.pulse

    def _ticks(self) -> list[Tick]:
        return list(self._life.stop.ticks.copy().values())

    def columns(self, now: float) -> dict[str, Any]:
        """What the row says now."""
        last = self._life.last
        self._note_success(last)
        if last is not None and last is not self._seen:
            self._seen = last
            self._trend.append(last.seconds)
        state, detail, since = self._now(now)
        if state is not self._state or since is not None:
            self._since = now if since is None else since
            self._state = state
        return {
            "state": str(state),
            "detail": detail[:TEXT_LENGTH],
            "started_age": now - self._begun,
            "state_age": now - self._since,
            "ticks": self.count_ticks(),
            "failures": self.failures,
            "last_error": self.last_error,
            "success_age": None if self.success_at is None else now - self.success_at,
            "last_seconds": None if last is None else last.seconds,
            "trend": list(self._trend),
            "due_in": self._due_in(state, now),
            "backlog": self.backlog,
            "dead_letters": self.dead_letters,
        }

    def _due_in(self, state: State, now: float) -> float | None:
        due = self._life.due
        is_due = due is not None and state in (State.WAITING, State.BACKING_OFF, State.PAUSED)
        if due is None or not is_due or due.monotonic == math.inf:
            return None
        left = due.monotonic - now
        return None if state is State.PAUSED and left < 0 else left

    def _now(self, now: float) -> tuple[State, str, float | None]:
        """The state, a text about it, and since when, if that is known."""
        life, stop, pause = self._life, self._life.stop, self._pauses.whole
        if stop.asked:
            return State.STOPPING, stop.reason or "", stop.asked_at
        if not self.is_ready:
            return State.STARTING, self.awaited, None
        if ticks := self._ticks():
            jobs = ", ".join(sorted({tick.name for tick in ticks if tick.name}))
            return State.TICKING, jobs, min(tick.began for tick in ticks)
        if life.daemon.has_serve:
            return State.SERVING, "", None
        if pause is not None and now < pause.until:
            return State.PAUSED, pause_text(pause.by, pause.why, pause.seconds(now)), None
        if reason := self.other_reason_to_wait():
            return State.STANDING_BY, self.leader or reason, None
        last, jobs = life.last, self._pauses.in_words()
        detail = f"{PAUSED}: {jobs}" if jobs else ""
        if last is not None and last.error is not None and last.ended.monotonic + last.pause > now:
            return State.BACKING_OFF, detail, last.ended.monotonic
        return State.WAITING, detail, None


def pause_text(by: str, why: str, seconds: float | None) -> str:
    """Who has paused something, for how long and why: "by ann@web1, for 2h: price import"."""
    until = "" if seconds is None else f", for {duration_text(max(1.0, round(seconds)))}"
    return f"by {by or 'nobody'}{until}{f': {why}' if why else ''}"
