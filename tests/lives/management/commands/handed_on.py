"""No leader itself: it was handed an epoch, takes its time, and writes under guard."""

import itertools
import random
import time

from django.core.management.base import BaseCommand
from django.db import connection

from daemonkit import StaleEpoch, fresh_connections, guarded
from daemonkit.models import Lease
from tests.lives.sql import note, say


class Command(BaseCommand):
    requires_system_checks = ()

    def handle(self, *args, **options):
        for number in itertools.count(1_000_000):
            try:
                self.write_once(number)
            except StaleEpoch as error:
                say(f"stale {number}: {error}")
            except Exception as error:
                say(f"failed after {number}: {error}")
                time.sleep(0.1)

    @fresh_connections
    def write_once(self, number):
        lease = Lease.objects.filter(name="leading").first()
        connection.close()
        time.sleep(random.uniform(0, 0.5))
        if lease is not None:
            with guarded("leading", lease.epoch):
                note(f"{lease.epoch} {number}")
            say(f"wrote {lease.epoch} {number}")
