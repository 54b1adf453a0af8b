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
            time.sleep(0.01)
