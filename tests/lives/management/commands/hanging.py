"""Hangs in Python, and swallows whatever is raised."""

import time

from daemonkit import BaseDaemonCommand, Every
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self):
        say("hanging now")
        while True:
            time.sleep(0.05)
