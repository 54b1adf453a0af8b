"""Needs the database before its first tick, in its lifespan."""

from contextlib import contextmanager

from daemonkit import Backoff, BaseDaemonCommand, Every
from tests.lives.sql import say, session


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.2)
    backoff = Backoff(first=0.1, cap=0.2)

    @contextmanager
    def lifespan(self):
        say(f"opened on {session()}")
        yield

    def tick(self):
        say(f"session {session()}")
