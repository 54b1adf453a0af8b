"""``ModelPoller``: a daemon that works off a queue in a table of the user's own."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet

from daemonkit.command import BaseDaemonCommand
from daemonkit.pollers.attempts import Attempts
from daemonkit.pollers.batch import Batch, rows
from daemonkit.pollers.queue import Queue, alias_of
from daemonkit.pollers.work import Work
from daemonkit.schedules.poll import Poll

if TYPE_CHECKING:
    from daemonkit.connections.pool import Pool
    from daemonkit.connections.private_session import PrivateSession

BACKLOG_LIMIT = 10_000
"""How many rows ``backlog()`` counts at most."""


COUNT_INTERVAL = 15.0
"""Seconds between two counts of the backlog for the status."""


class ModelPoller(BaseDaemonCommand):
    """A daemon that processes the rows of a queryset. Any number of workers and hosts share them.

    Write ``queryset`` (or ``get_queryset()``) and ``process()`` (or ``process_batch()``). The order
    is that of the queryset.
    """

    schedule = Poll(idle=1.0, cap=15.0)
    queryset: QuerySet[Any] | None = None
    """The rows that wait. A row that no longer matches has left the queue."""
    batch_size: int = 100
    """How many rows a tick takes at most."""
    done: str | Mapping[str, Any] | None = None
    """How a processed row leaves the queue: ``"delete"``, or the values of its fields, such as
    ``{"sent_at": Now()}``. By default ``process()`` makes it leave."""
    claim: str = "transaction"
    """``"transaction"``: what ``process()`` writes to the same database takes effect exactly once.
    ``"lease"``: for work that leaves the database or takes long; at least once."""
    claim_seconds: float = 60.0
    """With leases: seconds after which others take the rows of a process that has died."""
    max_attempts: int = 20
    """After so many failures a row is a dead letter. Between them it waits as ``backoff`` says."""
    threads: int = 1
    """With leases: how many threads process the rows of a batch."""

    _empty_ticks = 0
    _counted_at = -math.inf

    # What the author of a poller writes

    def get_queryset(self) -> QuerySet[Any]:
        """The rows that wait; asked in each tick."""
        assert self.queryset is not None
        return self.queryset.all()

    def process(self, row: Any) -> Any:
        """Process one row."""
        raise NotImplementedError("write process(row)")

    def process_batch(self, rows: list[Any]) -> Any:
        """Process rows together, instead of ``process()``."""
        raise NotImplementedError("write process_batch(rows)")

    # What others may ask

    def backlog(self, limit: int = BACKLOG_LIMIT) -> int:
        """How many rows may be taken now, counted no further than ``limit``: a full count of a long
        queue takes long. Rows that wait after a failure, dead letters and leased rows do not
        count."""
        return self.queue().count(limit)

    def left_over(self) -> str:
        """How many rows wait for a retry or are leased, and how many are dead letters."""
        attempts = self.attempts
        waiting, dead = attempts.waiting().count(), attempts.dead().count()
        found = [f"{rows(waiting)} waiting for a retry or leased"] if waiting else []
        found += [f"{rows(dead)} given up as dead letters"] if dead else []
        return ", ".join(found)

    @property
    def takes_batches(self) -> bool:
        """Whether the class has ``process_batch()``."""
        return type(self).process_batch is not ModelPoller.process_batch

    @property
    def takes_rows(self) -> bool:
        """Whether the class has ``process()``."""
        return type(self).process is not ModelPoller.process

    @property
    def attempts(self) -> Attempts:
        """The failures, dead letters and leases of its rows."""
        found: Attempts = self._attempts(alias_of(self.get_queryset()))
        return found

    @functools.cached_property
    def _attempts(self) -> Any:
        return functools.cache(functools.partial(Attempts, self.name))

    def queue(self) -> Queue:
        """The rows that wait now."""
        queryset = self.get_queryset()
        return Queue(queryset, self._attempts(alias_of(queryset)))

    # Its checks

    def check_class(self, workers: int = 1) -> None:
        from daemonkit.pollers.requirements import refuse_incomplete_class, refuse_workers_on_sqlite

        refuse_incomplete_class(self, ModelPoller)
        if workers > 1:
            refuse_workers_on_sqlite(self)

    def check_everything(self) -> None:
        from daemonkit.pollers.requirements import require_database

        super().check_everything()
        require_database(self)

    # A tick

    def tick(self) -> Batch:
        """Take a batch of rows, and process them."""
        self._report()
        queue = self.queue()
        batch = self._take(queue)
        if batch:
            self._empty_ticks = 0
            return batch
        if not self._empty_ticks:
            self.attempts.prune(queue.model, queue.rows)
        self._empty_ticks += 1
        batch.empty_ticks = self._empty_ticks
        return batch

    def _report(self) -> None:
        """Tell the status how many rows wait, and how many are dead letters."""
        steering, now = self.life.steering, time.monotonic()
        if steering is not None and now >= self._counted_at + COUNT_INTERVAL:
            self._counted_at = now
            steering.account.backlog = self.backlog()
            steering.account.dead_letters = self.attempts.dead().count()

    def _take(self, queue: Queue) -> Batch:
        work = Work(self, self._attempts(queue.alias))
        if self.claim == "transaction":
            from daemonkit.pollers.in_transaction import InTransaction

            return InTransaction(work, self._ahead(queue.alias)).tick(queue)
        from daemonkit.pollers.holding import Held
        from daemonkit.pollers.leased import Leased

        session = self._session(queue.alias)
        held = Held(work.attempts, self.claim_seconds, session, self._may_renew)
        threads = self.life.settings.threads
        pool = self._pool(threads) if threads > 1 else None
        return Leased(work, pool, threads).tick(queue, held)

    @functools.cached_property
    def _ahead(self) -> Any:
        """Of each database, the candidates that are left for the next tick."""
        from daemonkit.pollers.ahead import Ahead

        return functools.cache(lambda alias: Ahead())

    def _may_renew(self) -> bool:
        running = list(self.life.stop.ticks.values())
        return all(tick.overdue_since is None for tick in running)

    @functools.cached_property
    def _session(self) -> Any:
        """Of each database, the session that renews leases."""
        return functools.cache(self._new_session)

    def _new_session(self, alias: str) -> PrivateSession:
        from daemonkit.connections.private_session import PrivateSession

        session = PrivateSession(alias, self.claim_seconds, name=f"daemonkit {self.name}")
        self._to_close.append(session)
        return session

    @functools.cached_property
    def _pool(self) -> Any:
        return functools.cache(self._new_pool)

    def _new_pool(self, threads: int) -> Pool:
        from daemonkit.connections.pool import Pool

        pool = Pool(threads, name=self.name)
        self._to_close.append(pool)
        return pool

    @functools.cached_property
    def _to_close(self) -> list[Any]:
        return []

    def _live(self) -> None:
        try:
            super()._live()
        finally:
            for each in self._to_close:
                each.close()
            for name in ("_to_close", "_session", "_pool", "_ahead"):
                vars(self).pop(name, None)
