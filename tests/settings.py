"""The sample site's settings, on a database in memory. Servers come from the fixture ``alias``."""

from config.settings import *  # noqa: F403

SECRET_KEY = "only-for-tests"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = [*INSTALLED_APPS, "tests.queues"]  # noqa: F405
