"""One job does a deed in a coroutine, once; the other one counts."""

from daemonkit import BaseDaemonCommand, Every, job
from tests.lives.management.commands import awaiting
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    pulse = 0.3
    ledger = False
    is_first = True

    def add_arguments(self, parser):
        parser.add_argument("deed")

    @job(Every(seconds=0.05), tick_timeout=0.3)
    async def deed(self):
        if self.is_first:
            self.is_first = False
            await getattr(awaiting, self.options["deed"])()
        say("did its deed")

    @job(Every(seconds=0.05))
    async def counting(self):
        say("counts")
