"""A table, and a query for both loops."""

from django.db import connection, models


class Entry(models.Model):
    note = models.CharField(max_length=200)

    class Meta:
        managed = False
        db_table = "entry"

    def __str__(self) -> str:
        return self.note


def count_entries() -> str:
    """The work of a tick. The result names the session."""
    count = Entry.objects.count()
    return f"{count} rows, session {connection.connection.thread_id()}"
