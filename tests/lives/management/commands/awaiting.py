"""Its first tick, or a job, does one deed in a coroutine; the others do nothing."""

import asyncio
import contextlib
import os
import time

from asgiref.sync import sync_to_async

from daemonkit import BaseDaemonCommand, Every
from daemonkit.testing import gate
from tests.lives.sql import note, say, sleep


async def wait_for_ever():
    try:
        say("waits")
        await asyncio.sleep(3600)
    finally:
        await sync_to_async(note)("cleaned up")
        say("cleaned up")


async def query_for_ever():
    try:
        say("queries")
        await sync_to_async(sleep)(3600)
    finally:
        say("cleaned up")


async def refuse_to_end():
    say("refuses")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


async def block_the_loop():
    say("blocks")
    time.sleep(3600)


async def pass_a_gate():
    await asyncio.to_thread(gate, "in the tick")
    say("passed")


async def leave_a_task():
    async def work():
        try:
            await asyncio.sleep(3600)
        finally:
            await sync_to_async(note)("cleaned up")
            say("cleaned up")

    Command.task = asyncio.create_task(work())
    await asyncio.sleep(0)
    say("left a task")


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.05)
    pulse = 0.3
    is_first = True

    def add_arguments(self, parser):
        parser.add_argument("deed")

    async def tick(self):
        await asyncio.sleep(0)
        if self.is_first:
            self.is_first = False
            await globals()[self.options["deed"]]()
        say(f"tick of {os.getpid()}")
