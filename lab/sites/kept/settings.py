"""The same site with daemonkit."""

from lab.sites.bare.settings import *  # noqa: F403

INSTALLED_APPS = ["daemonkit", "lab.sites.bare", "lab.sites.kept"]
