"""Mail, which may take long and so goes to the task queue that the shop has.

That is Celery if CELERY_BROKER_URL is set, else Django's tasks (Django 6). Without either, mail is
sent at once.
"""

from datetime import date

from django.conf import settings
from django.core.mail import send_mail

from shop.models import DailyReport, Notice


def mail(day: str) -> None:
    report = DailyReport.objects.get(day=date.fromisoformat(day))
    text = f"{report}, {report.baskets_expired} baskets expired."
    send_mail(f"The shop on {day}", text, None, settings.SHOP_REPORT_TO)


def send_report(day: date) -> None:
    """Have the report of a day mailed later, by the task queue."""
    if settings.CELERY_BROKER_URL:
        from shop.celery import mail_report

        mail_report.delay(day.isoformat())
        return
    try:
        from shop.tasks import mail_report
    except ImportError:  # Django 5.2
        mail(day.isoformat())
    else:
        mail_report.enqueue(day.isoformat())


def send(notice: Notice) -> None:
    """Mail a customer about an order."""
    lines = [f"{line.quantity} {line.product}" for line in notice.basket.lines.all()]
    send_mail(f"Your order {notice.basket_id}", "\n".join(lines), None, [notice.address])
