"""``SkipReason``: why a due time of a job passed without a run."""

from __future__ import annotations

from enum import StrEnum


class SkipReason(StrEnum):
    """The ``reason`` of the signal ``run_skipped`` and of the ledger's rows."""

    OVERLAP = "overlap"
    """The previous run was still in progress."""

    GRACE = "grace"
    """It was too late: past its grace, or the next due time had passed."""

    BACK_OFF = "back-off"
    """The previous run had failed, and the pause was not over."""

    DOWN = "down"
    """No process ran the daemon, or its process was about to end."""

    PAUSED = "paused"

    NOT_LEADER = "not leader"

    DECIDED = "decided"
    """The job called ``self.skip()``. Its text is in the row's ``error``; the signal has it as the
    reason."""

    LEDGER = "ledger"
    """The due time could not be claimed, because the ledger could not be written."""
