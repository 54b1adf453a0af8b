"""Something to ask the database for."""

from django.db import connection, models


class Entry(models.Model):
    note = models.CharField(max_length=200)

    class Meta:
        managed = False
        db_table = "entry"

    def __str__(self) -> str:
        return self.note


def count_entries() -> str:
    """What both loops do in each tick, and the session in which it was done."""
    count = Entry.objects.count()
    return f"{count} rows, session {connection.connection.thread_id()}"
