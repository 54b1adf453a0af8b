"""A Thrift service without any care for its connections, or with Django's own, by hand."""

import functools
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections

from lab.sites.calls import Handler, serve, with_care


class Command(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--by-hand", action="store_true")

    def handle(self, *, by_hand: bool, **options: Any) -> None:
        serve(with_care(close_old_around)() if by_hand else Handler())


def close_old_around(method: Any) -> Any:
    @functools.wraps(method)
    def call(*arguments: Any) -> Any:
        close_old_connections()
        try:
            return method(*arguments)
        finally:
            close_old_connections()

    return call
