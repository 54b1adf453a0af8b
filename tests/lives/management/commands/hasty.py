"""Ticks fast and backs off little, so that outages show soon."""

from daemonkit import Backoff, BaseDaemonCommand, Every
from tests.lives.sql import note, say, session


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.1)
    backoff = Backoff(first=0.1, cap=0.2)

    def tick(self):
        note("tick")
        say(f"session {session()}")
