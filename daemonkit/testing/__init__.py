"""Tools for a project's tests of its daemons. docs/testing.md shows how to use them."""

from daemonkit.testing.clock import FakeClock
from daemonkit.testing.freezing import frozen_server
from daemonkit.testing.gates import Gate, Gates, gate
from daemonkit.testing.losing import Losing, Loss, lost_connections
from daemonkit.testing.notify import NotifySocket
from daemonkit.testing.running import DaemonUnderTest, SkippedRun, run_due, run_ticks
from daemonkit.testing.survival import Trouble, assert_survives

__all__ = [
    "DaemonUnderTest",
    "FakeClock",
    "Gate",
    "Gates",
    "Losing",
    "Loss",
    "NotifySocket",
    "SkippedRun",
    "Trouble",
    "assert_survives",
    "frozen_server",
    "gate",
    "lost_connections",
    "run_due",
    "run_ticks",
]
