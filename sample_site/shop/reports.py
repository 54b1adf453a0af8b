"""One row for each day: what was sold, what expired, how many prices changed."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db.models import DecimalField, F, QuerySet, Sum
from django.utils import timezone

from shop.models import Basket, BasketLine, DailyReport, PriceChange

CENT = Decimal("0.01")


def day_before(due: datetime | None, zone: ZoneInfo) -> date:
    """The day before this moment, or before now."""
    return (due or timezone.now()).astimezone(zone).date() - timedelta(days=1)


def write_report(day: date, zone: ZoneInfo) -> DailyReport:
    """Write the report of a day, or replace it: there is one row a day."""
    start, end = (
        datetime.combine(each, time.min, tzinfo=zone) for each in (day, day + timedelta(days=1))
    )
    closed = Basket.objects.filter(closed_at__gte=start, closed_at__lt=end)
    orders = closed.filter(state=Basket.State.ORDERED)
    changes = PriceChange.objects.filter(changed_at__gte=start, changed_at__lt=end)
    report, _ = DailyReport.objects.update_or_create(
        day=day,
        defaults={
            "orders": orders.count(),
            "revenue": revenue(BasketLine.objects.filter(basket__in=orders)),
            "baskets_expired": closed.filter(state=Basket.State.EXPIRED).count(),
            "price_changes": changes.count(),
        },
    )
    return report


def revenue(lines: QuerySet[BasketLine]) -> Decimal:
    value = Sum(F("quantity") * F("unit_price"), output_field=DecimalField())
    return (lines.aggregate(value=value)["value"] or Decimal()).quantize(CENT)
