"""Two jobs."""

from contextlib import AbstractContextManager

from daemonkit import BaseDaemonCommand, Every, job
from soaks.lives.work import shown, work


class Command(BaseDaemonCommand):
    ledger = False

    def lifespan(self) -> AbstractContextManager[None]:
        return shown()

    @job(Every(seconds=0.02))
    def often(self) -> None:
        work()

    @job(Every(seconds=0.05))
    def rarely(self) -> None:
        work()
