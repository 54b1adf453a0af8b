"""The same site with daemonkit."""

from benchmarks.bare.settings import *  # noqa: F403

INSTALLED_APPS = ["daemonkit", "benchmarks.bare", "benchmarks.kept"]
