"""A command from before daemonkit: it handles SIGINT itself, as asyncio's documentation shows."""

import asyncio
import signal

from django.core.management.base import BaseCommand

from daemonkit.testing import gate


class Command(BaseCommand):
    def handle(self, **options):
        asyncio.run(self.main())

    async def main(self):
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stop.set)
        gate("in the tick")
        try:
            await asyncio.wait_for(stop.wait(), 0.2)
        except TimeoutError:
            self.stdout.write("polled")
            self.stdout.flush()
