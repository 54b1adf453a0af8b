"""A daemon that has nothing to do, each second."""

import contextlib
import time
from collections.abc import Iterator

from benchmarks.work import say
from daemonkit import BaseDaemonCommand, Every


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
