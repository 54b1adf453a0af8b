from datetime import date
from zoneinfo import ZoneInfo

from django.core.management.base import CommandParser

from daemonkit import BaseDaemonCommand, Cron
from shop.reports import day_before, write_report

ZONE = "Asia/Shanghai"


class Command(BaseDaemonCommand):
    help = "Write the report of the day that has ended."
    schedule = Cron("0 3 * * *", timezone=ZONE)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--day", type=date.fromisoformat, help="Default: the day before.")

    def tick(self) -> str:
        zone = ZoneInfo(ZONE)
        return str(write_report(self.options["day"] or day_before(self.due, zone), zone))
