"""Leaves a grandchild behind in each tick, which then ends: another process must reap it."""

import os
import time

from daemonkit import BaseDaemonCommand, Poll
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = Poll(idle=0.2)
    left = 0

    def tick(self):
        child = os.fork()
        if not child:
            if not os.fork():
                time.sleep(0.1)
            os._exit(0)
        os.waitpid(child, 0)
        self.left += 1
        say(f"orphan {self.left}")
