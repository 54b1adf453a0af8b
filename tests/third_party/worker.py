"""A process in which a third-party package meets one fault after the other, for ``table.py``.

``python -m tests.third_party.worker '{"package": ..., "database": {...}, "daemonkit": true}'``
reads the name of a fault from each line of its input, and answers with a line of JSON: what went
wrong here, and which rows must now be on the server. What it wants done to the server meanwhile,
it asks of its parent in the same way.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lab.waiting import eventually
from tests.third_party.packages import PACKAGES, Package

UNITS = 20
FAILURES = 200


class Worker:
    """One package at work, with daemonkit or with Django alone."""

    def __init__(self, package: Package, *, with_daemonkit: bool) -> None:
        self.package = package
        self.with_daemonkit = with_daemonkit
        self.begin()

    def begin(self) -> None:
        self.rows: list[str] = []
        self.troubles: list[str] = []
        self.statements = 0

    def unit(self) -> AbstractContextManager[None]:
        """Return what one unit of work stands in."""
        if not self.with_daemonkit:
            return between_calls_of_close_old_connections()
        from daemonkit import fresh_connections

        return fresh_connections

    def execute(self, sql: str, *params: Any) -> Any:
        """Execute a statement on the table ``entry``; a tracer has to see it."""
        from django.db import connection

        self.statements += 1
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchone()[0] if cursor.description else None

    def insert(self, note: str) -> None:
        self.execute("INSERT INTO entry (note) VALUES (%s)", note)

    def insert_atomically(self, note: str, then: Callable[[], Any] | None = None) -> None:
        from django.db import transaction

        with transaction.atomic():
            self.insert(note)
            if then is not None:
                then()
            self.execute("SELECT COUNT(*) FROM entry")

    def works(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Do a unit of work that must succeed. Its first argument is the row that it writes."""
        self.rows.append(arguments[0])
        try:
            with self.unit():
                work(*arguments)
        except Exception as error:
            self.troubles.append(f"a unit of work fails ({describe(error)})")

    def fails(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Do a unit of work that must fail."""
        try:
            with self.unit():
                work(*arguments)
        except Exception:
            return
        self.troubles.append("an error is swallowed")

    def kill_sessions(self) -> None:
        print(json.dumps("kill"), flush=True)
        sys.stdin.readline()

    def rest(self) -> None:
        """Close what a process closes that goes to rest."""
        from django.db import connection

        try:
            connection.close()
        except Exception as error:
            self.troubles.append(f"close() fails ({describe(error)})")

    def meet(self, fault: Callable[[Worker], None]) -> dict[str, Any]:
        """Let a fault happen, and return its outcome."""
        self.works(self.insert_atomically, "first")  # what is opened once, is open from here on
        self.rest()
        descriptors, seen = count_descriptors(), self._seen()
        self.statements = 0
        fault(self)
        self.rest()
        may_be_open = descriptors + self.package.idle_sessions  # a pool closes and opens by itself
        if not comes_true(lambda: count_descriptors() <= may_be_open):
            self.troubles.append("descriptors are left over")
        if not comes_true(lambda: self._lent() == 0):
            self.troubles.append("the pool counts connections as lent for ever")
        if self.package.count_statements and self._seen() - seen < self.statements:
            self.troubles.append("statements are not traced")
        facts = {"rows": self.rows, "troubles": self.troubles}
        self.begin()
        return facts

    def _lent(self) -> int:
        return self.package.count_lent() if self.package.count_lent else 0

    def _seen(self) -> int:
        return self.package.count_statements() if self.package.count_statements else 0


@contextlib.contextmanager
def between_calls_of_close_old_connections() -> Iterator[None]:
    """What a careful project does by hand."""
    from django.db import close_old_connections

    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def comes_true(condition: Callable[[], bool]) -> bool:
    """Return whether a condition is met within two seconds."""
    try:
        return eventually(condition, within=2)
    except AssertionError:
        return False


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


# The faults


def many_units(worker: Worker) -> None:
    from django.db import connection

    function = {"mysql": "CONNECTION_ID()", "postgresql": "pg_backend_pid()"}[connection.vendor]
    sessions = set()

    def note_session() -> None:
        sessions.add(worker.execute(f"SELECT {function} /* beside entry */"))

    for number in range(UNITS):
        worker.works(worker.insert_atomically, f"unit {number}", note_session)
    if len(sessions) > max(1, worker.package.idle_sessions):
        worker.troubles.append("sessions are not used again")


def idle_kill(worker: Worker) -> None:
    for number in range(3):
        worker.works(worker.insert_atomically, f"before {number}")
        worker.kill_sessions()
        worker.works(worker.insert_atomically, f"after {number}")


def error_in_the_middle(worker: Worker) -> None:
    def no_such_table() -> None:
        worker.execute("SELECT 1 FROM no_such_table_beside_entry")

    def mistake() -> None:
        raise ValueError("the handler's own")

    def keep_and_repeat_a_key() -> None:
        worker.rows.append("kept")
        worker.insert("kept")
        worker.execute("INSERT INTO entry (id, note) VALUES (-1, 'twice'), (-1, 'twice')")

    worker.fails(worker.insert_atomically, "undone by the database", no_such_table)
    worker.works(worker.insert_atomically, "after an error of the database")
    worker.fails(worker.insert_atomically, "undone by the handler", mistake)
    worker.works(worker.insert_atomically, "after an error of the handler")
    worker.fails(keep_and_repeat_a_key)
    worker.works(worker.insert_atomically, "after an IntegrityError")


def kill_in_the_middle(worker: Worker) -> None:
    def keep_and_be_killed() -> None:
        worker.rows.append("kept")
        worker.insert("kept")
        worker.kill_sessions()
        worker.execute("SELECT COUNT(*) FROM entry")

    worker.fails(worker.insert_atomically, "undone by the KILL", worker.kill_sessions)
    worker.works(worker.insert_atomically, "after a KILL in a transaction")
    with contextlib.suppress(Exception):  # pgbouncer takes another session, and nobody notices
        with worker.unit():
            keep_and_be_killed()
    worker.works(worker.insert_atomically, "after a KILL between two statements")


def cut_by_tick_timeout(worker: Worker) -> None:
    """A daemon whose first tick hangs in a statement; the two that follow do not."""
    from django.core.management import call_command
    from django.db import connection

    from daemonkit import BaseDaemonCommand, Every
    from daemonkit.schedules.backoff import Backoff

    sleep = "SLEEP(30)" if connection.vendor == "mysql" else "pg_sleep(30)"
    ticks: list[str] = []

    class Command(BaseDaemonCommand):
        schedule = Every(seconds=0.01)
        backoff = Backoff(first=0.01)
        tick_timeout = 2  # a good tick on a busy machine takes less
        max_ticks = 3

        def tick(self) -> None:
            ticks.append(f"tick {len(ticks)}")
            hangs = len(ticks) == 1
            hang = f"SELECT {sleep} /* beside entry */"
            worker.insert_atomically(ticks[-1], (lambda: worker.execute(hang)) if hangs else None)

    with contextlib.suppress(Exception):
        call_command(Command(), raise_errors=False)
    if len(ticks) != 3:
        worker.troubles.append("the daemon does not go on")
    worker.rows += ["tick 1", "tick 2"]


def fork(worker: Worker) -> None:
    """A child that works and ends as any Python process does, beside its parent.

    With Django alone the parent closes its connections before it forks.
    """
    from django.db import connections

    worker.works(worker.insert_atomically, "before the fork")
    if not worker.with_daemonkit:
        connections.close_all()
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        worker.begin()
        worker.works(worker.insert_atomically, "the child's")
        worker.rest()
        os.write(writer, json.dumps(worker.troubles).encode())
        sys.exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as report:
        worker.troubles += json.loads(report.read() or '["the child dies"]')
    worker.rows.append("the child's")
    worker.works(worker.insert_atomically, "after the fork")
    worker.works(worker.insert_atomically, "after the fork, once more")


def failures_in_a_row(worker: Worker) -> None:
    def no_such_table() -> None:
        worker.execute("SELECT 1 FROM no_such_table_beside_entry")

    for _ in range(FAILURES):
        worker.fails(worker.insert_atomically, "undone", no_such_table)
    for number in range(3):
        worker.works(worker.insert_atomically, f"after the failures {number}")


FAULTS: dict[str, Callable[[Worker], None]] = {
    "units of work": many_units,
    "idle KILL": idle_kill,
    "an error in the middle": error_in_the_middle,
    "KILL in the middle": kill_in_the_middle,
    "a cut by tick_timeout": cut_by_tick_timeout,
    "a fork": fork,
    f"{FAILURES} failures in a row": failures_in_a_row,
}
ONLY_WITH_DAEMONKIT = ("a cut by tick_timeout",)


def main() -> None:
    told = json.loads(sys.argv[1])
    package = next(package for package in PACKAGES if package.name == told["package"])
    package.prepare()
    set_up(package, told["database"], with_daemonkit=told["daemonkit"])
    worker = Worker(package, with_daemonkit=told["daemonkit"])
    for line in sys.stdin:
        try:
            facts = worker.meet(FAULTS[json.loads(line)])
        except Exception:
            facts = {"rows": [], "troubles": [traceback.format_exc()]}
        print(json.dumps(facts), flush=True)


def set_up(package: Package, database: dict[str, Any], *, with_daemonkit: bool) -> None:
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=[*package.apps, *(["daemonkit"] if with_daemonkit else [])],
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
        **package.settings,
    )
    package.instrument()
    django.setup()
    package.enter()


if __name__ == "__main__":
    main()
