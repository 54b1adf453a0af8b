"""What is handed to django.tasks: its immediate backend does it when it is enqueued."""

from django.tasks import task

from tests.lives.sql import note


@task
def note_it(due):
    note(due)
