"""A daemon that has nothing to do, each second."""

import contextlib
import time
from collections.abc import Iterator

from daemonkit import BaseDaemonCommand, Every
from lab.sites.work import say


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)
    ticked = False

    @contextlib.contextmanager
    def lifespan(self) -> Iterator[None]:
        yield
        say({"left": time.monotonic()})

    def tick(self) -> None:
        if not self.ticked:
            self.ticked = True
            say({"ticked": time.monotonic()})
