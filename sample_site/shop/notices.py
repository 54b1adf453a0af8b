"""Mail, which may take its time: handed to whatever task queue the shop has.

Celery where CELERY_BROKER_URL is set, else Django's own tasks (Django 6), else it is done at once.
"""

from datetime import date
from typing import Any

from django.conf import settings
from django.core.mail import mail_managers

from shop.models import DailyReport


def mail_report(day: str) -> str:
    report = DailyReport.objects.get(day=date.fromisoformat(day))
    mail_managers(f"The shop on {day}", f"{report}, {report.baskets_expired} baskets expired.")
    return day


def send_report(day: date) -> None:
    """Have the report of a day mailed to the managers, by somebody else and later."""
    hand_over(day.isoformat())


def hand_over(day: str) -> Any:
    if settings.CELERY_BROKER_URL:
        from shop.celery import mail_report_by_celery

        return mail_report_by_celery.delay(day)
    try:
        from django.tasks import task
    except ImportError:  # Django 5.2
        return mail_report(day)
    return task(mail_report).enqueue(day)
