"""The shop's tasks for Django 6. TASKS names the backend; the default one runs them at once."""

from django.tasks import task

from shop.notices import mail


@task
def mail_report(day: str) -> None:
    mail(day)
