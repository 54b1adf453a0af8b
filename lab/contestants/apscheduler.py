"""APScheduler by itself, and with Django's database as its job store."""

from lab.contestants.base import Contestant


class APScheduler(Contestant):
    """With its job store in memory. daemonkit depends on it, so it needs no packages."""

    name = "APScheduler, in memory"


class DjangoAPScheduler(Contestant):
    name = "django-apscheduler, MariaDB"
    site = "stored"
    packages = "django-apscheduler"
