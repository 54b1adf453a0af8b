"""Ticks through daemonkit's real loop: each round is a life of its own, each tick due at once."""

import contextlib
from collections.abc import Iterator
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from daemonkit import BaseDaemonCommand, Poll
from lab.sites.work import Stopwatch, answer, select_one, use


class Ticks(BaseDaemonCommand):
    schedule = Poll()
    stopwatch = Stopwatch()

    @contextlib.contextmanager
    def lifespan(self) -> Iterator[None]:
        select_one()
        with self.stopwatch.running():
            yield

    def tick(self) -> bool:
        select_one()
        return True


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        def round_of(ticks: int, **settings: Any) -> float:
            use(**settings)
            daemon = Ticks()
            call_command(daemon, max_ticks=ticks)
            return daemon.stopwatch.seconds / ticks

        answer(round_of)
