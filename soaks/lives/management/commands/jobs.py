"""Two jobs."""

from daemonkit import Every, job
from soaks.lives.work import Shown, work


class Command(Shown):
    ledger = False

    @job(Every(seconds=0.02))
    def often(self) -> None:
        work()

    @job(Every(seconds=0.05))
    def rarely(self) -> None:
        work()
