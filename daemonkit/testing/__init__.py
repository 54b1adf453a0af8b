"""For a project's own tests of its daemons."""

from daemonkit.testing.clock import FakeClock

__all__ = ["FakeClock"]
