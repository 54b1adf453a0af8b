"""Asks one ``httpx.AsyncClient``, opened by an async ``lifespan()``, in every tick."""

import asyncio
import contextlib
import os

import httpx
import uvloop

from daemonkit import BaseDaemonCommand, Every
from tests.lives.sql import say

if os.environ.get("LOOP") == "uvloop":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


async def answer(reader, writer):
    while await reader.readline() not in (b"\r\n", b""):
        pass
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await writer.drain()
    writer.close()


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.05)

    @contextlib.asynccontextmanager
    async def lifespan(self):
        say(type(asyncio.get_running_loop()).__module__)
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server, httpx.AsyncClient(trust_env=False) as self.client:
            say("opened")
            yield
        say("closed")

    async def tick(self):
        response = await self.client.get(f"http://127.0.0.1:{self.port}/")
        say(f"answer {response.text}")
