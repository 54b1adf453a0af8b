"""Drains a queue with a ``ModelPoller``."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from daemonkit import Iteration, ModelPoller, signals
from lab.sites.bare.models import Entry
from lab.sites.drained import fill, process
from lab.sites.work import answer


class Drain(ModelPoller):
    queryset = Entry.objects.filter(note="").order_by("pk")
    done = "delete"

    def process(self, row: Entry) -> None:
        process(row)


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        drained = 0

        def count(iteration: Iteration, **_: Any) -> None:
            nonlocal drained
            drained += iteration.result.done

        def turn(rows: int = 0, batch: int = 0) -> int:
            nonlocal drained
            if rows:
                call_command("migrate", verbosity=0)
                fill(rows)
                return 0
            drained = 0
            daemon = Drain()
            daemon.batch_size = batch
            call_command(daemon, until_empty=True, skip_checks=True, verbosity=0)
            return drained

        signals.iteration_finished.connect(count)
        answer(turn)
