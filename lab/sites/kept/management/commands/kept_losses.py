"""daemonkit's real loop, with a clock in whose waits the session is lost."""

from collections.abc import Callable
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from daemonkit import BaseDaemonCommand, Clock, Every
from lab.sites.work import Losses, answer, close, use


class Ticks(BaseDaemonCommand):
    schedule = Every(seconds=0.001)

    def __init__(self, losses: Losses) -> None:
        super().__init__()
        self.losses = losses

    def tick(self) -> None:
        self.losses.tick()


class LossyClock(Clock):
    def __init__(self, losses: Losses, daemon: Ticks) -> None:
        self.losses, self.daemon = losses, daemon

    def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
        if not self.losses.pause():
            self.daemon.life.stop.ask("measured")


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        def life(**settings: Any) -> int:
            use(**settings)
            losses = Losses()
            daemon = Ticks(losses)
            call_command(daemon, clock=LossyClock(losses, daemon))
            close()
            return losses.failed

        answer(life)
