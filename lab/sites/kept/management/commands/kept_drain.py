"""Drains a queue with a ``ModelPoller``."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from daemonkit import ModelPoller
from lab.sites.bare.models import Entry
from lab.sites.drained import fill, process
from lab.sites.work import answer


class Drain(ModelPoller):
    queryset = Entry.objects.filter(note="").order_by("pk")
    done = "delete"
    rows = 0

    def process(self, row: Entry) -> None:
        process(row)

    def tick(self) -> Any:
        batch = super().tick()
        self.rows += batch.done
        if not batch:
            self.life.stop.ask("drained")
        return batch


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        def turn(rows: int = 0, batch: int = 0) -> int:
            if rows:
                call_command("migrate", verbosity=0)
                fill(rows)
                return 0
            daemon = Drain()
            daemon.batch_size = batch
            call_command(daemon, skip_checks=True, verbosity=0)
            return daemon.rows

        answer(turn)
