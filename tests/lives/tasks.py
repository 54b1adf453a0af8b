"""What is handed to django.tasks: its immediate backend does it when it is enqueued."""

from tests.lives.sql import note


def note_it(due):
    note(due)
