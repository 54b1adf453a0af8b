"""Tables that pollers of the tests work off: one for each kind of key."""

import uuid

from django.db import models


class Letter(models.Model):
    """A row of an outbox. ``kind`` tells the test's ``process()`` what to do with it."""

    kind = models.CharField(max_length=20, default="good")
    sent = models.IntegerField(null=True, db_index=True)

    class Meta:
        app_label = "queues"


class Effect(models.Model):
    """What ``process()`` did for a letter, in the same database."""

    letter = models.CharField(max_length=100, db_index=True)

    class Meta:
        app_label = "queues"


class Express(Letter):
    """A letter with a table of its own: multi-table inheritance."""

    price = models.IntegerField(default=1)

    class Meta:
        app_label = "queues"


class Parcel(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    sent = models.IntegerField(null=True)
    letter = models.ForeignKey(Letter, null=True, on_delete=models.CASCADE)

    class Meta:
        app_label = "queues"


class Line(models.Model):
    """A row with a composite primary key."""

    pk = models.CompositePrimaryKey("order", "number")
    order = models.CharField(max_length=20)
    number = models.IntegerField()
    sent = models.IntegerField(null=True)

    class Meta:
        app_label = "queues"


class Tagged(models.Model):
    """A row whose key is a text."""

    tag = models.CharField(max_length=40, primary_key=True)
    sent = models.IntegerField(null=True)

    class Meta:
        app_label = "queues"
