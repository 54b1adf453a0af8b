"""The trial of new code that a SIGHUP has asked for, as the watcher follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemonkit.process.watched import Watched

if TYPE_CHECKING:
    from daemonkit.process.trial import Trial

LOOK_INTERVAL = 0.05
"""Seconds between two checks whether the trial has ended."""


class NewCode:
    """At most one trial at a time."""

    def __init__(self) -> None:
        self._trial: Trial | None = None

    @property
    def is_tried(self) -> bool:
        """Whether a trial is running, or its outcome was not asked for yet."""
        return self._trial is not None

    def begin_trial(self, watched: Watched) -> bool:
        """Begin a trial; the code may have changed since an earlier one. False if there is nothing
        to try."""
        self.end_trial()
        self._trial = watched.try_new_code()
        return self.is_tried

    def outcome(self) -> str | None:
        """Why the new code is refused; "" if it loads, None while no trial has ended."""
        reason = self._trial.reason_to_refuse() if self._trial is not None else None
        if reason is not None:
            self._trial = None
        return reason

    def end_trial(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.end()
