"""``assert_survives()``: try common failures on a project's own daemon and database."""

from daemonkit.testing.survival.survives import assert_survives
from daemonkit.testing.survival.troubles import Trouble

__all__ = ["Trouble", "assert_survives"]
