"""A loop as it is often written: it catches the error and goes on."""

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import Error

from demo.models import count_entries


class Command(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seconds", type=float, default=1)

    def handle(self, *, seconds: float, **options: Any) -> None:
        while True:
            try:
                print(count_entries(), flush=True)
            except Error as error:
                print(f"FAILED {error}", flush=True)
            time.sleep(seconds)
