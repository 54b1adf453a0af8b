"""The shop's Celery app: `celery -A shop.celery worker`. Needs celery[redis]."""

from celery import Celery
from django.conf import settings

from shop.notices import mail_report

app = Celery("shop", broker=settings.CELERY_BROKER_URL)
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True

mail_report_by_celery = app.task(name="shop.mail_report")(mail_report)
