"""A queue in a table, which contestants drain. Imports nothing of daemonkit."""

from __future__ import annotations

from django.db import connection

from lab.sites.bare.models import Entry


def fill(rows: int) -> None:
    """Put this many rows into the queue. The table is made if there is none."""
    if Entry._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Entry)
    Entry.objects.all().delete()
    Entry.objects.bulk_create((Entry(note="") for _ in range(rows)), batch_size=1000)
    with connection.cursor() as cursor:  # or the planner would take the table for an empty one
        analyze = "ANALYZE TABLE" if connection.vendor == "mysql" else "ANALYZE"
        cursor.execute(f"{analyze} {Entry._meta.db_table}")


def process(row: Entry) -> None:
    """The work on a row: none, so that only the queue itself is measured."""
