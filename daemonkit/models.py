"""daemonkit's own tables: the ledger's rows and the leaders' leases.

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


class Lease(models.Model):
    """Who leads of all the processes that run a daemon, and for the how manieth time."""

    name = models.CharField(max_length=200, primary_key=True)
    holder = models.CharField(max_length=200, blank=True)
    epoch = models.PositiveBigIntegerField(default=0)
    renewals = models.PositiveBigIntegerField(default=0)
    seconds = models.FloatField()

    def __str__(self) -> str:
        return f"{self.name} led by {self.holder or 'nobody'}, epoch {self.epoch}"
