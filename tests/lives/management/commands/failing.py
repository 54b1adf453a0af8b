"""Fails, in the way and as often as it is told."""

from django.db import OperationalError

from daemonkit import Backoff, BaseDaemonCommand, Every
from tests.lives.sql import say

KINDS = {"value": ValueError("no such price"), "database": OperationalError(1213, "Deadlock")}


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.01)
    backoff = Backoff(first=0.01, cap=0.02)

    def add_arguments(self, parser):
        parser.add_argument("--kind", choices=KINDS, default="value")

    def tick(self):
        say("tried")
        raise KINDS[self.options["kind"]]
