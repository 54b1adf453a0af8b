"""The shop's Celery app: `celery -A shop.celery worker`. Needs celery[redis]."""

from celery import Celery
from django.conf import settings

from shop.notices import mail

app = Celery("shop", broker=settings.CELERY_BROKER_URL)
app.conf.task_ignore_result = True


@app.task(name="shop.mail_report")
def mail_report(day: str) -> None:
    mail(day)
