"""Renews a lease, and writes under guard; beside both the same without daemonkit."""

from collections.abc import Sequence
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection, transaction

from daemonkit import guarded
from daemonkit.connections.private_session import Answer, PrivateSession
from daemonkit.leading.lease import Candidate
from daemonkit.leading.rows import LeaseRow
from daemonkit.leading.terms import Terms
from daemonkit.models import Lease
from lab.sites.work import Stopwatch, answer

TABLE = Lease._meta.db_table


class Command(BaseCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", "daemonkit", verbosity=0)
        Lease.objects.filter(name="priced").delete()
        self.session = PrivateSession("default", 3)
        self.candidate = Candidate(LeaseRow(TABLE, "priced", self.ask), Terms(), "host:1:token")
        self.candidate.take()
        connection.ensure_connection()
        self.epoch = Lease.objects.get(name="priced").epoch
        answer(self.work)
        self.session.close()

    def ask(self, sql: str, params: Sequence[Any]) -> Answer:
        return self.session.execute(sql, params, 3)

    def work(self, *, what: str, times: int) -> float:
        """Seconds for each call."""
        once = getattr(self, what)
        once()
        watch = Stopwatch()
        with watch.running():
            for _ in range(times):
                once()
        return watch.seconds / times

    def renewal(self) -> None:
        self.candidate.renew()

    def look(self) -> None:
        self.candidate.look()

    def update(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {TABLE} SET seconds = seconds + 1 WHERE name = 'other'")
            if not cursor.rowcount:
                Lease.objects.create(name="other", seconds=1)

    def guarded_write(self) -> None:
        with guarded("priced", self.epoch):
            self.update()

    def plain_write(self) -> None:
        with transaction.atomic():
            self.update()
