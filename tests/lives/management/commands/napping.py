"""Waits for a long time, and prints when it begins to wait."""

from contextlib import contextmanager

from daemonkit import BaseDaemonCommand, Poll
from daemonkit.signals import daemon_waiting
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Poll(idle=60)

    @contextmanager
    def lifespan(self):
        daemon_waiting.connect(self.on_waiting)
        yield

    def on_waiting(self, **_):
        say("waits")

    def tick(self):
        say("naps")
