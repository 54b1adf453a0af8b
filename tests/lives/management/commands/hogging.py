"""Runs C code that keeps Python's lock, so that no other thread of the process can run."""

from daemonkit import BaseDaemonCommand, Poll
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Poll(idle=1)

    def tick(self):
        say("hogging now")
        sum(range(10**13))
