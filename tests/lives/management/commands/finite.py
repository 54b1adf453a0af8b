"""Works off the rows of the table, and then finds nothing."""

from django.db import connection

from daemonkit import BaseDaemonCommand, Poll
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Poll(idle=60)

    def add_arguments(self, parser):
        parser.add_argument("--finish", action="store_true", help="finish in the second tick")

    def left_over(self):
        return "3 rows wait for a retry"

    def tick(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT MIN(id) FROM entry")
            (row,) = cursor.fetchone()
            if row is not None:
                cursor.execute("DELETE FROM entry WHERE id = %s", [row])
        say(f"worked {row}")
        if self.options["finish"] and row is None:
            self.finish("the year is over")
        return row is not None
