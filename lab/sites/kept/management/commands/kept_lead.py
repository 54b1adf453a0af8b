"""A daemon with a leader: prints when it stands by, and its first tick of each term."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from daemonkit import BaseDaemonCommand, Every
from daemonkit.signals import standing_by
from lab.sites.work import say


def say_so(leader: str, **_: Any) -> None:
    say({"leader": leader})


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.05)
    leader = True
    said = 0

    @contextlib.contextmanager
    def lifespan(self) -> Iterator[None]:
        standing_by.connect(say_so)
        yield

    def tick(self) -> None:
        if self.epoch != self.said:
            self.said = self.epoch
            say({"ticked": time.monotonic(), "epoch": self.epoch})
