"""Passes a gate in each tick."""

from daemonkit import BaseDaemonCommand, Every
from daemonkit.testing import gate
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.05)

    def tick(self):
        gate("tick")
        say("passed")
