"""An asyncio server that answers each line; its queries run on the main thread."""

import asyncio
import os

from asgiref.sync import sync_to_async

from daemonkit import BaseDaemonCommand
from tests.lives.management.commands.serving import answer
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    pulse = 0.5

    def add_arguments(self, parser):
        parser.add_argument("address", nargs="?", default="127.0.0.1:0")
        parser.add_argument("--kind", default="lines")

    async def serve(self):
        await getattr(self, self.options["kind"])()

    async def lines(self):
        stopped = asyncio.Event()
        listener = self.listen(self.options["address"])
        say(f"listening on {listener.getsockname()}")
        server = await asyncio.start_server(self.client, sock=listener)
        self.on_stop(stopped.set)
        await stopped.wait()
        server.close()

    async def client(self, reader, writer):
        line = (await reader.readline()).decode().strip()
        if line:
            text = await sync_to_async(answer)(line)
            writer.write(text.encode())
            await writer.drain()
        writer.close()

    async def for_ever(self):
        try:
            say(f"serves {os.getpid()}")
            await asyncio.sleep(3600)
        finally:
            say("cancelled")

    async def blocks(self):
        import time

        say("blocks")
        time.sleep(3600)
