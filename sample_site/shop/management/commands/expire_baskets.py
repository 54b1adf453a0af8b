from datetime import timedelta

from django.core.management.base import CommandParser

from daemonkit import BaseDaemonCommand, Every
from shop.baskets import expire


class Command(BaseDaemonCommand):
    help = "Give back the stock that forgotten baskets hold."
    schedule = Every(seconds=30)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", type=float, default=30, metavar="MINUTES")

    def tick(self) -> int:
        return expire(timedelta(minutes=self.options["older_than"]))
