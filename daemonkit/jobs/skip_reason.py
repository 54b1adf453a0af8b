"""Why a due time of a job passed without a run."""

from __future__ import annotations

from enum import StrEnum


class SkipReason(StrEnum):
    """What ``run_skipped`` carries and the ledger's column ``reason`` holds."""

    OVERLAP = "overlap"
    """The run before it was still running."""

    GRACE = "grace"
    """It came too late: past its grace, or the next due time had come."""

    BACK_OFF = "back-off"
    """The run before it had failed, and the pause was not over."""

    DOWN = "down"
    """No process ran the daemon, or the process was about to end."""

    PAUSED = "paused"

    NOT_LEADER = "not leader"

    LEDGER = "ledger"
    """The due time could not be claimed, because the ledger could not be written."""
