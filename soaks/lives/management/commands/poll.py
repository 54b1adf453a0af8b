"""A poller, for several workers."""

from contextlib import AbstractContextManager

from daemonkit import BaseDaemonCommand, Poll
from soaks.lives.work import shown, work


class Command(BaseDaemonCommand):
    schedule = Poll(idle=0.02)

    def lifespan(self) -> AbstractContextManager[None]:
        return shown()

    def tick(self) -> None:
        work()
