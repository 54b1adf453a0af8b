"""daemonkit's own tables: the ledger, the leases of leaders, claims, wake-ups, the rows of
pollers, processes and orders.

They are in the database DAEMONKIT["database"], ``PollerRow`` in that of the poller's model.
"""

from __future__ import annotations

from typing import Any

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
    attempt = models.PositiveIntegerField(default=1, db_default=1)
    tries = models.TextField(null=True)  # JSON: the failed tries before this one
    result = models.CharField(max_length=200, blank=True, default="", db_default="")

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


class Wake(models.Model):
    """How often ``daemonkit.wake(name)`` has woken the daemons with this ``wake_on``."""

    name = models.CharField(max_length=200, primary_key=True)
    times = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name} woken {self.times} times"


class KeyTextField(models.CharField):  # type: ignore[type-arg]
    """A text in a collation that tells all texts apart: MySQL's default does not."""

    def db_parameters(self, connection: Any) -> Any:
        collation = {"collation": "utf8mb4_bin"} if connection.vendor == "mysql" else {}
        return {**super().db_parameters(connection), **collation}


class PollerRow(models.Model):
    """A failure, a dead letter or a lease of the row of a poller with this primary key, as text.
    ``not_before`` is the end of the pause or of the lease, by the database's clock."""

    poller = models.CharField(max_length=200)
    key = KeyTextField(max_length=255)
    owner = models.CharField(max_length=200, blank=True)
    epoch = models.PositiveBigIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField()
    error = models.TextField(blank=True)
    dead = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["poller", "key"], name="poller_row_once")]
        indexes = [models.Index(fields=["poller", "dead", "not_before"], name="poller_row_due")]


class Process(models.Model):
    """What the process HOST:PID:TOKEN last reported, and when, by the database's clock."""

    key = models.CharField(max_length=200, primary_key=True)
    daemon = models.CharField(max_length=200, db_index=True)
    touched = models.DateTimeField()
    report = models.TextField()  # JSON; the checks of a JSONField connect to a database

    def __str__(self) -> str:
        return f"{self.daemon} {self.key}"


class Order(models.Model):
    """An order to the processes of a daemon, or to one that takes it. Times are the database's."""

    daemon = models.CharField(max_length=200, db_index=True)
    verb = models.CharField(max_length=20)
    given = models.DateTimeField()
    until = models.DateTimeField(null=True)
    taken_by = models.CharField(max_length=200, blank=True)
    details = models.TextField()  # JSON

    def __str__(self) -> str:
        return f"{self.verb} {self.daemon}"
