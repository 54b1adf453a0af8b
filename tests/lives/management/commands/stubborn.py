"""Does row after row, catches every error, and carries on whatever it is told."""

import time

from django.db import Error, connection

from daemonkit import BaseDaemonCommand, Every
from tests.lives.sql import note, say


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self):
        number = refused = 0
        while True:
            number += 1
            try:
                note(f"row {number}")
                say(f"wrote {number}")
            except Error as error:
                refused += 1
                if refused < 4:
                    say(f"refused: {type(error).__name__}: {error}")
                connection.close()  # as people do who have read a blog post
                self.try_another(number)
            time.sleep(0.01)

    def try_another(self, number):
        """On a connection that nobody has seen yet."""
        other = connection.copy()
        try:
            with other.cursor() as cursor:
                cursor.execute("INSERT INTO entry (note) VALUES (%s)", [f"again {number}"])
            say(f"wrote {number} after all")
        except Error:
            pass
        finally:
            other.close()
