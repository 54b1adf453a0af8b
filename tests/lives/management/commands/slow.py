"""A transaction that takes its time in the driver, or proves progress meanwhile."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import async_to_sync
from django.db import transaction

from daemonkit import BaseDaemonCommand, Every, Pool
from tests.lives.sql import note, say, sleep


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def add_arguments(self, parser):
        parser.add_argument("--seconds", type=float, default=2)
        parser.add_argument("--beats", action="store_true")
        parser.add_argument("--helpers", choices=["thread", "executor", "pool", "async"])
        parser.add_argument("--python", action="store_true")

    def tick(self):
        with transaction.atomic():
            note("begun")
            say("in the middle")
            self.pass_time(self.options["seconds"])
            note("done")
        say("committed")

    def pass_time(self, seconds):
        if self.options["python"]:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                time.sleep(0.05)
        elif self.options["beats"]:
            for number in range(round(seconds * 5)):
                sleep(0.2)
                self.beat(f"{number} of {seconds * 5:g}")
        elif self.options["helpers"]:
            HELPERS[self.options["helpers"]](lambda: self.pass_time_beating(seconds))
        else:
            sleep(seconds)

    def pass_time_beating(self, seconds):
        for number in range(round(seconds * 20)):
            time.sleep(0.05)
            self.beat(f"{number} of {seconds * 20:g}")


def on_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def on_an_executor(work):
    with ThreadPoolExecutor(1) as executor:
        executor.submit(work).result()


def on_a_pool(work):
    with Pool(1) as pool:
        pool.submit(work).result()


def on_a_loop(work):
    async_to_sync(asyncio.to_thread)(work)


HELPERS = {
    "thread": on_a_thread,
    "executor": on_an_executor,
    "pool": on_a_pool,
    "async": on_a_loop,
}
