"""Prints the id of its session in each tick."""

from contextlib import contextmanager

from daemonkit import BaseDaemonCommand, Every
from tests.lives.sql import say, session


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    @contextmanager
    def lifespan(self):
        say("opened")
        yield
        say("closed")

    def tick(self):
        say(f"session {session()}")
