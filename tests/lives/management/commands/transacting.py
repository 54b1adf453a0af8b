"""Ticks fast, each tick in a transaction."""

from django.db import transaction

from daemonkit import Backoff, BaseDaemonCommand, Every
from tests.lives.sql import note, say, session


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.1)
    backoff = Backoff(first=0.1, cap=0.2)

    def tick(self):
        with transaction.atomic():
            note("tick")
            number = session()
        say(f"session {number}")
