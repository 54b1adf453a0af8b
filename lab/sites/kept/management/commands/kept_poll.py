"""A poller that makes a query every hundredth of a second, and says when it made the first."""

import os
import time

from daemonkit import BaseDaemonCommand, Poll
from lab.sites.work import say, select_one


class Command(BaseDaemonCommand):
    schedule = Poll(idle=0.01)
    ticked = False

    def tick(self) -> None:
        select_one()
        if not self.ticked:
            self.ticked = True
            say({"pid": os.getpid(), "ticked": time.monotonic()})
