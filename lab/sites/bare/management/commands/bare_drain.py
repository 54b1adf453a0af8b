"""Drains a queue with a SELECT ... FOR UPDATE SKIP LOCKED written by hand."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import OperationalError, transaction

from lab.sites.bare.models import Entry
from lab.sites.drained import fill, process
from lab.sites.work import answer


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        def turn(rows: int = 0, batch: int = 0) -> int:
            if rows:
                fill(rows)
                return 0
            return sum(iter(lambda: drain_in_spite_of_deadlocks(batch), 0))

        answer(turn)


def drain_in_spite_of_deadlocks(batch: int) -> int:
    """Process a batch. Two workers on MariaDB now and then deadlock; then it begins again."""
    while True:
        try:
            return drain(batch)
        except OperationalError as error:
            if error.args[0] != 1213:
                raise


def drain(batch: int) -> int:
    """Process a batch. Returns how many rows it had."""
    with transaction.atomic():
        waiting = Entry.objects.filter(note="").order_by("pk")
        rows = list(waiting.select_for_update(skip_locked=True)[:batch])
        for row in rows:
            process(row)
        if rows:
            Entry.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return len(rows)
