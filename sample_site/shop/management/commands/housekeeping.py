from datetime import timedelta
from zoneinfo import ZoneInfo

from daemonkit import BaseDaemonCommand, Cron, Every, job
from shop import prices
from shop.baskets import expire
from shop.notices import send_report
from shop.reports import day_before, write_report

ZONE = "Asia/Shanghai"


class Command(BaseDaemonCommand):
    help = "Expire baskets, average prices, and write and mail the report of the day."

    @job(Every(seconds=30))
    def expire_baskets(self) -> int:
        return expire(timedelta(minutes=30))

    @job(Every(minutes=10), tick_timeout="5m")
    def average_prices(self) -> object:
        return prices.refresh()

    @job(Cron("0 3 * * *", timezone=ZONE), catch_up=True, exclusive=True, retries=3)
    def report(self) -> str:
        zone = ZoneInfo(ZONE)
        report = write_report(day_before(self.due, zone), zone)
        send_report(report.day)
        return str(report)
