"""Leaves something behind that will not end: a thread, a child, an atexit function, a lifespan."""

import atexit
import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time

from daemonkit import BaseDaemonCommand, Every
from tests.lives.sql import say

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def consume():
    while True:
        time.sleep(1)


def leave_a_thread():
    threading.Thread(target=consume, name="consumer").start()


def leave_a_child():
    multiprocessing.get_context("fork").Process(target=consume).start()


def leave_an_exit_function():
    atexit.register(consume)


def leave_nothing(): ...


def run_a_program():
    say(f"child {os.getpid()}")
    subprocess.run([sys.executable, "-c", STUBBORN], check=False)


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.2)
    stop_timeout = 1.0
    per_worker = True
    is_first = True

    def add_arguments(self, parser):
        parser.add_argument("deed")

    @contextlib.contextmanager
    def lifespan(self):
        yield
        if self.options["deed"] == "leave_a_lifespan":
            consume()

    def tick(self):
        if self.is_first:
            self.is_first = False
            globals().get(self.options["deed"], leave_nothing)()
        say("ticked")
