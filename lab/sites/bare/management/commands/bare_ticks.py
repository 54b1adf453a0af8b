"""A loop without any care for its connection, or with what Django has for it, by hand."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections

from lab.sites.work import Stopwatch, answer, select_one, use


class Command(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--by-hand", action="store_true")

    def handle(self, *, by_hand: bool, **options: Any) -> None:
        loop = loop_by_hand if by_hand else loop_without_care

        def round_of(ticks: int, **settings: Any) -> float:
            use(**settings)
            select_one()
            stopwatch = Stopwatch()
            with stopwatch.running():
                loop(ticks)
            return stopwatch.seconds / ticks

        answer(round_of)


def loop_without_care(ticks: int) -> None:
    for _ in range(ticks):
        select_one()


def loop_by_hand(ticks: int) -> None:
    for _ in range(ticks):
        close_old_connections()
        select_one()
        close_old_connections()
