"""The shop's tasks for Django 6, whichever backend TASKS names; its default does them at once."""

from django.tasks import task

from shop.notices import mail


@task
def mail_report(day: str) -> None:
    mail(day)
