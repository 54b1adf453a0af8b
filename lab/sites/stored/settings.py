"""The same site with django-apscheduler, which the other contestants do not load."""

from lab.sites.bare.settings import *  # noqa: F403

INSTALLED_APPS = ["django_apscheduler", "lab.sites.bare"]
