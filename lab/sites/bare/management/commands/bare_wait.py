"""A bare command that has nothing to do, each second: what daemonkit's idle loop is held against.

It waits on an event that its signal handler sets, or sleeps.
"""

import signal
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from lab.sites.work import say


class Command(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--sleep", action="store_true")

    def handle(self, *, sleep: bool, **options: Any) -> None:
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        wait = time.sleep if sleep else stop.wait
        say({"ticked": time.monotonic()})
        while not stop.is_set():
            wait(1)
        say({"left": time.monotonic()})
