"""Coroutines that are units of work: they overlap, fail, are cancelled, and lose their sessions.

A step is a batch of ten coroutines, and one that must be healthy.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import Any

from asgiref.sync import sync_to_async

from soaks.databases import Database, count_descriptors, database
from soaks.soak import Report, Size, Soak

BATCH = 10
KILL_EVERY = 10
"""In steps, each of which is about ten units of work."""
LONGEST = 5e-3
"""Seconds until a coroutine is cancelled."""


class Coroutines(Soak):
    """With random exceptions and cancellations, and every hundredth followed by a KILL."""

    name = "coroutines"
    variants = ("mariadb", "postgres")
    steps = 1_000

    def run(self, variant: str, random: Random, size: Size) -> Report:
        logging.getLogger().addHandler(logging.NullHandler())
        with database(variant) as found:
            run = Run(found, random)
            asyncio.run(run.steps(size))
            return run.report


class Run:
    """The steps of one soak, and what must be true after each."""

    def __init__(self, database: Database, random: Random) -> None:
        from daemonkit import fresh_connections
        from soaks import work

        self.database, self.random = database, random
        self.report = Report()
        self.works = [work.look, work.commit_by_atomic, work.fail_in_atomic, work.fail_by_a_rule]
        self.works += [work.fail_by_the_database, work.commit_by_autocommit]
        self.healthy_work = work.commit_by_atomic
        self.unit = fresh_connections(self._unit)
        self.descriptors: int | None = None

    async def _unit(self, work: Any, note: str) -> None:
        await sync_to_async(work)(note)
        await asyncio.sleep(0)
        await sync_to_async(self.works[0])(note)

    async def steps(self, size: Size) -> None:
        for number in size.numbers():
            await self.batch(number)
            await self.healthy(f"{number} healthy")
            if number % KILL_EVERY == KILL_EVERY - 1:
                await asyncio.to_thread(self.database.kill_sessions)
                self.report.seen["KILLs"] += 1
                await self.healthy(f"{number} after a KILL")
                await self.check(number)

    async def batch(self, number: int) -> None:
        """Let ten coroutines overlap, half of which are cancelled at some moment."""
        loop = asyncio.get_running_loop()
        tasks = []
        for part in range(BATCH):
            work = self.random.choice(self.works)
            tasks.append(asyncio.create_task(self.unit(work, f"{number}.{part}")))
            if self.random.random() < 0.5:
                loop.call_later(LONGEST * self.random.random() ** 2, tasks[-1].cancel)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            name = "well" if result is None else f"by {type(result).__name__}"
            self.report.seen[f"ended {name}"] += 1

    async def healthy(self, note: str) -> None:
        """Await a coroutine that must succeed, in a thread whose depth must be zero."""
        depth = await sync_to_async(depth_here)()
        self.report.expect(depth == 0, f"{note}: the depth was {depth}")
        self.report.seen["healthy"] += 1
        try:
            await self.unit(self.healthy_work, note)
        except Exception as error:
            self.report.wrong.append(f"{note}: {type(error).__name__}: {error}")

    async def check(self, number: int) -> None:
        """Compare the sessions and the descriptors with what must be."""
        notes = await asyncio.to_thread(self.database.notes)
        healthy = {f"{number} healthy", f"{number} after a KILL"}
        self.report.expect(healthy <= notes, f"step {number}: healthy rows are lost")
        await asyncio.to_thread(self.database.clear)
        await sync_to_async(close)()
        is_down = await asyncio.to_thread(self.database.sessions_come_down_to, 0)
        self.report.expect(is_down, f"step {number}: sessions are left over")
        found = count_descriptors()
        self.descriptors = self.descriptors or found
        more = found - self.descriptors
        self.report.expect(more <= 0, f"step {number}: {more} descriptors more")


def depth_here() -> int:
    """The depth of the thread on which Django's queries run; each fault is told once."""
    from daemonkit.connections.thread import this_thread

    depth, this_thread().depth = this_thread().depth, 0
    return depth


def close() -> None:
    from django.db import connection

    connection.close()
