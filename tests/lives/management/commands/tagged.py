"""A worker that asks the server for its session, and shows a row that was meant for another one."""

import os
import time
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from daemonkit import Backoff, BaseDaemonCommand, Poll
from daemonkit.signals import daemon_stopped
from tests.lives.sql import note, say, session, sleep


class Command(BaseDaemonCommand):
    schedule = Poll(idle=0.05)
    backoff = Backoff(first=0.2, factor=2, cap=2)

    def add_arguments(self, parser):
        parser.add_argument("--idle", type=float, default=0)
        parser.add_argument("--opens-in", type=float, default=0)
        parser.add_argument("--sleep", type=float, default=0)
        parser.add_argument("--spin", type=float, default=0)
        parser.add_argument("--writes", action="store_true")
        parser.add_argument("--quiet", action="store_true")
        parser.add_argument("--hog", type=int, default=0, metavar="MB")
        parser.add_argument("--beats", action="store_true")
        parser.add_argument("--lingers", type=float, default=0, help="when it has stopped")
        parser.add_argument("--dies", default="", help="in lifespan, tick or second: the exit code")

    hoard = ()
    ticked = 0

    @contextmanager
    def lifespan(self):
        if os.environ.get("LIVES_MISCONFIGURED") == "tagged":
            raise ImproperlyConfigured("nobody has said where the tags are")
        self.die("lifespan")
        time.sleep(self.options["opens_in"])
        daemon_stopped.connect(self.linger)
        say(f"opened {self.worker_number} in {os.getpid()}")
        yield
        say(f"closed {self.worker_number}")

    def tick(self):
        tag = f"{self.worker_number}-{os.getpid()}-{time.monotonic_ns()}"
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", [tag])
            (found,) = cursor.fetchone()
        if found != tag:
            say(f"FOREIGN ROW: {found}, not {tag}")
        if not self.options["quiet"]:
            say(f"tick of {self.worker_number} in {os.getpid()} on session {session()}")
        self.die("tick")
        self.ticked += 1
        if self.ticked == 2:
            self.die("second")
        if self.options["hog"]:
            self.hoard = (*self.hoard, bytearray(os.urandom(1) * (self.options["hog"] << 20)))
        if self.options["writes"]:
            note(tag)
        if self.options["sleep"]:
            say(f"sleeping {self.worker_number}")
            sleep(self.options["sleep"])
        if self.options["spin"]:
            say(f"spinning {self.worker_number}")
            deadline = time.monotonic() + self.options["spin"]
            while time.monotonic() < deadline:
                time.sleep(0.05)
                if self.options["beats"]:
                    self.beat("still at it")
        if self.options["idle"]:
            self.wait(self.options["idle"])

    def linger(self, **_):
        if self.options["lingers"]:
            say("lingers")
            time.sleep(self.options["lingers"])

    def die(self, where):
        place, _, code = self.options["dies"].partition(":")
        if place == where:
            say(f"dying in {place}")
            raise SystemExit(int(code))
