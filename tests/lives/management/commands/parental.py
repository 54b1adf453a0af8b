"""Has a child in each tick, which asks the database and is ended, or ends itself."""

import multiprocessing
import os
import sys
import time

from daemonkit import BaseDaemonCommand, Every
from tests.lives.sql import say, session


def ask_and_wait(asked):
    session()
    asked.set()
    time.sleep(60)


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.1)

    def add_arguments(self, parser):
        parser.add_argument("--how", default="process")

    def tick(self):
        say(f"session {session()}")
        code = self.ended() if self.options["how"] == "process" else self.forked()
        say(f"session {session()}")
        say(f"child ended with {code}")

    def ended(self):
        context = multiprocessing.get_context("fork")
        asked = context.Event()
        child = context.Process(target=ask_and_wait, args=(asked,))
        child.start()
        asked.wait(10)
        child.terminate()
        child.join(10)
        return child.exitcode

    def forked(self):
        pid = os.fork()
        if not pid:
            session()
            sys.exit()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
