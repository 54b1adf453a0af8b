from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandParser

from daemonkit import BaseDaemonCommand, Poll
from shop.inbox import import_next


class Command(BaseDaemonCommand):
    help = "Import the price files dropped into the inbox."
    schedule = Poll(idle=2)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--inbox", type=Path, default=settings.SHOP_INBOX, metavar="FOLDER")

    def tick(self) -> str:
        return import_next(self.options["inbox"])
