"""Decides when the next tick of a daemon is due, and why it must wait.

A ``Pace`` answers questions about a moment. It never waits, sends a signal or reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daemonkit.clock import Moment
from daemonkit.iteration import Iteration
from daemonkit.schedules.backoff import next_due
from daemonkit.schedules.base import Schedule


class Reason(Protocol):
    """Something that may keep a daemon from ticking: an election, a pause, pending migrations."""

    def reason_to_wait(self, now: Moment) -> str:
        """Why the daemon may not tick now, such as "not leader"; "" if it may."""


class Pace:
    """When the next tick of one life is due.

    ``begun`` is when the life began. ``reasons`` are asked in their order. More may be appended to
    the list during the life.
    """

    def __init__(self, schedule: Schedule, begun: Moment, reasons: Sequence[Reason] = ()) -> None:
        self.schedule = schedule.for_one_life()
        self.reasons = list(reasons)
        self.since = begun
        """The moment from which the schedule counts."""
        self.forward: Moment | None = None
        self._is_patient = False
        self._extra: Moment | None = None
        self._regular: Moment | None = None

    def reason_to_wait(self, now: Moment) -> str:
        """Why no tick may start now, though one may be due; "" if it may."""
        for reason in self.reasons:
            if why := reason.reason_to_wait(now):
                return why
        return ""

    def due(self, last: Iteration | None, now: Moment) -> Moment:
        """When the next tick is due after ``last``; ``NEVER`` if none follows.

        The wall clock may be set during a wait, so ask again before each slice of it.
        """
        has_failed = last is not None and last.error is not None
        if self.forward is not None and not (has_failed and self._is_patient):
            return self.forward
        if last is None or last.started.monotonic < self.since.monotonic:
            return next_due(self.schedule, None, self.since, now)
        if last.due is self._extra and self._regular is not None and self.schedule.is_fixed:
            last = last._replace(due=self._regular)
        return next_due(self.schedule, last, self.since, now)

    def starts(self, due: Moment, last: Iteration | None) -> None:
        """Note that the tick that was due at ``due`` starts, after ``last``."""
        if due is self.forward:
            self.forward = None
            if last is not None and last.due is not self._extra:
                self._regular = last.due
            self._extra = due
        elif self._is_patient:
            self.forward = None  # this tick finds what it was woken for

    def bring_forward(self, now: Moment, *, restart: bool = False, patient: bool = False) -> None:
        """Make a tick due now; with ``patient``, after the back-off of a failure. From any thread.

        The schedule then continues as it would have without this tick. With ``restart`` the
        schedule itself begins again now, as for a new leader, which does not run what came due
        while another process led."""
        if restart:
            self.since, self.forward = now, None
        else:
            self._is_patient = patient and (self._is_patient or self.forward is None)
            self.forward = now
