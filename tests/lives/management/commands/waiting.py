"""Waits in its tick for a socket, whose other end is written to by a thread of its own."""

import socket
import threading
from contextlib import contextmanager

from daemonkit import BaseDaemonCommand, Poll
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Poll(idle=0)

    def add_arguments(self, parser):
        parser.add_argument("--spin", action="store_true", help="do not wait")

    @contextmanager
    def lifespan(self):
        self.ours, self.theirs = socket.socketpair()
        with self.ours, self.theirs:
            yield

    def tick(self):
        if self.options["spin"]:
            return
        say("waits")
        threading.Timer(0.05, self.theirs.send, [b"."]).start()
        ready = self.wait_for(self.ours, 60)
        say(f"ready {ready == [self.ours]}")
        self.ours.recv(1)
        say("listens")
        self.wait_for(self.ours, 60)
