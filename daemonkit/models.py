"""daemonkit's own tables: the ledger's rows, the leaders' leases, and claims.

They live on the database alias that DAEMONKIT["database"] names.
"""

from __future__ import annotations

from django.db import models


class Run(models.Model):
    """One due time of one job, and what became of it: the ledger's row."""

    class Status(models.TextChoices):
        RUNNING = "running"
        RAN = "ran"
        FAILED = "failed"
        SKIPPED = "skipped"

    daemon = models.CharField(max_length=200)
    job = models.CharField(max_length=200)
    due = models.DateTimeField()
    status = models.CharField(max_length=10, choices=Status)
    reason = models.CharField(max_length=20, blank=True)
    late = models.FloatField(default=0.0)
    started = models.DateTimeField(null=True)
    seconds = models.FloatField(null=True)
    error = models.TextField(blank=True)
    host = models.CharField(max_length=200, blank=True)
    pid = models.PositiveIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["daemon", "job", "due"], name="daemonkit_run_once")
        ]

    def __str__(self) -> str:
        return f"{self.daemon}.{self.job} due {self.due}: {self.status}"


class Owned(models.Model):
    """Something with a name that one process holds, and others may take when it is not renewed."""

    name = models.CharField(max_length=200, primary_key=True)
    holder = models.CharField(max_length=200, blank=True)
    epoch = models.PositiveBigIntegerField(default=0)
    renewals = models.PositiveBigIntegerField(default=0)
    seconds = models.FloatField()

    class Meta:
        abstract = True


class Lease(Owned):
    """Which process leads of all that run a daemon, and the number of its term (``epoch``)."""

    def __str__(self) -> str:
        return f"{self.name} led by {self.holder or 'nobody'}, epoch {self.epoch}"


class Claim(Owned):
    """Which process has the right to something, such as a run of a job. ``touched`` is the
    database's own time."""

    touched = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} claimed by {self.holder or 'nobody'}, epoch {self.epoch}"
