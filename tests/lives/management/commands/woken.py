"""Says when it ticks; in each tick it reads how far the table has grown, and writes the time."""

import os
import time

from django.db import connection

from daemonkit import BaseDaemonCommand, Poll
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Poll(idle=3600)
    wake_on = "emails"
    wait_for_migrations = "WAIT" not in os.environ

    def add_arguments(self, parser):
        parser.add_argument("--seconds", type=float, default=0, help="how long a tick takes")

    def tick(self):
        began = time.time()
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM entry")
            count = cursor.fetchone()[0]
        say(f"saw {count} at {began:.4f}")
        time.sleep(self.options["seconds"])
        say("ended")
