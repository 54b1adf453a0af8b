"""Forks with a number of open connections, and waits for the child."""

import os
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection

from lab.sites.work import Stopwatch, answer


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        self.held: list[Any] = []
        answer(self.round_of)

    def round_of(self, what: str, times: int, held: int) -> float:
        self.hold(held)
        stopwatch = Stopwatch()
        with stopwatch.running():
            for _ in range(times):
                if not (pid := os.fork()):
                    os._exit(0)
                os.waitpid(pid, 0)
        return stopwatch.seconds / times

    def hold(self, count: int) -> None:
        while len(self.held) > count:
            self.held.pop().close()
        while len(self.held) < count:
            self.held.append(connection.copy())
            self.held[-1].connect()
