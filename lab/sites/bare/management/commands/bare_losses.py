"""A loop that goes on after an error, with and without Django's care, by hand."""

import contextlib
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections

from lab.sites.work import Losses, answer, close, use


class Command(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--by-hand", action="store_true")

    def handle(self, *, by_hand: bool, **options: Any) -> None:
        care = close_old_connections if by_hand else lambda: None

        def life(**settings: Any) -> int:
            use(**settings)
            losses = Losses()
            while True:
                care()
                with contextlib.suppress(Exception):
                    losses.tick()
                care()
                if not losses.pause():
                    break
            close()
            return losses.failed

        answer(life)
