"""The same site with django-apscheduler, which the other contestants do not load."""

from benchmarks.bare.settings import *  # noqa: F403

INSTALLED_APPS = ["django_apscheduler", "benchmarks.bare"]
