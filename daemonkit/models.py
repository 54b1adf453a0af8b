"""daemonkit's own tables: the ledger, the leases of leaders, claims, processes and orders.

They are in the database with the alias DAEMONKIT["database"].
"""

from __future__ import annotations

from django.db import models


class Run(models.Model):
    """A row of the ledger: one due time of one job, and its outcome."""

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
    """A lock with a name, which other processes may acquire when its holder does not renew it."""

    name = models.CharField(max_length=200, primary_key=True)
    holder = models.CharField(max_length=200, blank=True)
    epoch = models.PositiveBigIntegerField(default=0)
    renewals = models.PositiveBigIntegerField(default=0)
    seconds = models.FloatField()

    class Meta:
        abstract = True


class Lease(Owned):
    """Which of the processes that run a daemon leads, and the number of its term (``epoch``)."""

    def __str__(self) -> str:
        return f"{self.name} led by {self.holder or 'nobody'}, epoch {self.epoch}"


class Claim(Owned):
    """Which process may do something, such as run a job. ``touched`` is the time of the last
    change, by the database's clock."""

    touched = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} claimed by {self.holder or 'nobody'}, epoch {self.epoch}"


class Process(models.Model):
    """What the process HOST:PID:TOKEN last reported, and when, by the database's clock."""

    key = models.CharField(max_length=200, primary_key=True)
    daemon = models.CharField(max_length=200, db_index=True)
    touched = models.DateTimeField()
    report = models.JSONField()

    def __str__(self) -> str:
        return f"{self.daemon} {self.key}"


class Order(models.Model):
    """An order to the processes of a daemon, or to one that takes it. Times are the database's."""

    daemon = models.CharField(max_length=200, db_index=True)
    verb = models.CharField(max_length=20)
    given = models.DateTimeField()
    until = models.DateTimeField(null=True)
    taken_by = models.CharField(max_length=200, blank=True)
    details = models.JSONField()

    def __str__(self) -> str:
        return f"{self.verb} {self.daemon}"
