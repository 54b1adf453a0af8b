"""Task queues on a private Redis: their workers, and who keeps them busy."""

from __future__ import annotations

from typing import ClassVar

from lab.contestants.base import Contestant


class QueueWorkers(Contestant):
    """The workers of a task queue."""

    site = "queues"
    kind: ClassVar[str]
    """What ``lab.sites.queues.feed`` calls it."""

    def worker_command(self, workers: int) -> list[str]:
        """Start this many workers and their parent."""
        raise NotImplementedError

    def feeder_command(self) -> list[str]:
        """Keep their queue filled."""
        return [self.python, "-m", "lab.sites.queues.feed", self.kind]


class Celery(QueueWorkers):
    name = "Celery prefork"
    kind = "celery"
    packages = "celery"

    def worker_command(self, workers: int) -> list[str]:
        quiet = ["--loglevel", "CRITICAL", "--without-gossip", "--without-mingle"]
        app = ["-m", "celery", "-A", "lab.sites.queues.celery", "worker", "-c", str(workers)]
        return [self.python, *app, *quiet]


class DjangoQ(QueueWorkers):
    name = "django-q2 cluster"
    kind = "django_q"
    packages = "django-q2"

    def worker_command(self, workers: int) -> list[str]:
        return [self.python, "-m", "django", "qcluster"]
