"""``exclusive="atomic"``: the claim of a due time and its work commit in one transaction.

Each such job has a committed row in the table of claims. A run locks it with ``SELECT ... FOR
UPDATE SKIP LOCKED``, so a process that does not get it need not wait. An ``INSERT`` of the due time
would make all other processes wait for the end of the run.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from contextlib import AbstractContextManager

from django.apps import apps
from django.core.management.base import CommandError
from django.db import connections, router, transaction
from django.db.models.functions import Now

from daemonkit import conf
from daemonkit.connections.private_session import PrivateSession
from daemonkit.exits import Exit
from daemonkit.jobs.claims import claim_name
from daemonkit.jobs.ledger import REQUEST_SECONDS
from daemonkit.jobs.rows import Entry, Rows
from daemonkit.leading.work import claim_of_this_work
from daemonkit.models import Claim


class Answer(enum.Enum):
    """Whether a run may do its work in the transaction that is open."""

    OURS = enum.auto()
    BUSY = enum.auto()
    """Another process runs the job."""
    OVER = enum.auto()
    """Another process has run the due time."""


class AtomicClaim:
    """The claim of one job. Its transactions are those of the thread that runs the job."""

    def __init__(self, daemon: str, job: str) -> None:
        self.name = claim_name(daemon, job)
        self._rows = Rows(daemon)

    def create_row(self, session: PrivateSession) -> None:
        """Create the job's row, if it is not there. Raises the errors of the database."""
        session.run(self.ensure_row, REQUEST_SECONDS)

    def ensure_row(self) -> None:
        """Create the job's row, if it is not there, on this thread's connection."""
        claims = Claim.objects.using(conf.database())
        if not claims.filter(name=self.name).exists():  # an INSERT would wait for its lock
            row = Claim(name=self.name, seconds=0.0, touched=Now())
            claims.bulk_create([row], ignore_conflicts=True)

    @contextlib.contextmanager
    def transaction(
        self, entry: Entry, replaced: tuple[str, ...], *, is_retry: bool
    ) -> Iterator[Answer]:
        """A transaction that begins with the claim of the due time of ``entry``."""
        with transaction.atomic(using=conf.database(), durable=True):
            token = claim_of_this_work.set(self)
            try:
                yield self._claim(entry, replaced, is_retry=is_retry)
            finally:
                claim_of_this_work.reset(token)

    def _claim(self, entry: Entry, replaced: tuple[str, ...], *, is_retry: bool) -> Answer:
        claims = Claim.objects.using(conf.database()).filter(name=self.name)
        locked = claims.select_for_update(skip_locked=True).values_list("pk")
        if not list(locked):
            if claims.exists():
                return Answer.BUSY
            self.ensure_row()  # it was deleted as unused
            if not list(locked.all()):  # another process has created it, and runs the job
                return Answer.BUSY
        is_ours = self._rows.is_to_run(entry, replaced, is_retry=is_retry)
        return Answer.OURS if is_ours else Answer.OVER

    def commit_with(self, entry: Entry) -> None:
        """Write the outcome of the run, inside its transaction."""
        claims = Claim.objects.using(conf.database()).filter(name=self.name)
        claims.update(touched=Now())  # or it would be deleted as unused
        self._rows.write_in_transaction(entry)

    def guarded(self) -> AbstractContextManager[None]:
        """``self.guarded()`` in such a run: its transaction holds the claim already."""
        return contextlib.nullcontext()


def refuse_where_it_cannot_be_atomic(daemon: str, module: str, job: str) -> None:
    """Raise ``CommandError`` (exit code 2) if daemonkit's database is not that of the daemon's app,
    or has no ``SKIP LOCKED``."""
    alias = conf.database()
    if not connections[alias].features.has_select_for_update_skip_locked:
        why = f"needs SELECT ... FOR UPDATE SKIP LOCKED, which {alias!r} does not have"
    else:
        app = apps.get_containing_app_config(module)
        aliases = {router.db_for_write(model) for model in app.get_models()} if app else set()
        if not aliases or alias in aliases:
            return
        others = ", ".join(sorted(aliases))
        why = (
            f"commits its claim in the database {alias!r}, and the models of {app and app.label} "
            f"are in {others}"
        )
    raise CommandError(
        f'{daemon}, job {job}: exclusive="atomic" {why}: use exclusive=True, or set '
        f'DAEMONKIT["database"]',
        returncode=Exit.USAGE,
    )
