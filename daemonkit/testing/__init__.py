"""For a project's own tests of its daemons."""

from daemonkit.testing.clock import FakeClock
from daemonkit.testing.gates import Gate, Gates, gate

__all__ = ["FakeClock", "Gate", "Gates", "gate"]
