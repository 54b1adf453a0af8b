"""A loop."""

from contextlib import AbstractContextManager

from daemonkit import BaseDaemonCommand, Every
from soaks.lives.work import shown, work


class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.03)

    def lifespan(self) -> AbstractContextManager[None]:
        return shown()

    def tick(self) -> None:
        work()
