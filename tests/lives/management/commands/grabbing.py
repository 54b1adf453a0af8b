"""The first tick changes the signal handling as libraries do; later ticks do nothing."""

import asyncio
import os
import signal
import time

import trio
import uvloop

from daemonkit import BaseDaemonCommand, Every
from daemonkit.testing import gate
from tests.lives.sql import say


def leave_a_handler():
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    stand()


def leave_it_ignored():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stand()


def leave_it_to_the_system():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stand()


def leave_no_descriptor():
    signal.set_wakeup_fd(-1)
    stand()


def leave_it_blocked():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    stand()


def run_asyncio():
    async def main():
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
        await stand_async(asyncio.sleep)

    asyncio.run(main())


def run_asyncio_for_sigterm():
    async def main():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        await stand_async(asyncio.sleep)

    asyncio.run(main())


def run_uvloop():
    async def main():
        await stand_async(asyncio.sleep)

    uvloop.run(main())


def run_trio():
    async def main():
        await stand_async(trio.sleep)

    trio.run(main)


def stand():
    gate("in the tick")
    for _ in range(20):  # Python runs between these sleeps
        time.sleep(0.01)


async def stand_async(sleep):
    gate("in the tick")
    for _ in range(20):
        await sleep(0.01)


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.1)
    pulse = 0.2
    is_first = True

    def add_arguments(self, parser):
        parser.add_argument("deed")

    def tick(self):
        say(f"tick of {os.getpid()}")
        if self.is_first:
            self.is_first = False
            globals()[self.options["deed"]]()
            say("done")
