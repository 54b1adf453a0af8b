"""``claim = "transaction"``: rows are locked, processed and finished in one transaction.

What ``process()`` writes to the same database takes effect exactly once: it commits together with
the end of the row's wait. There are no savepoints. If a row fails, the transaction is rolled back,
and each row gets one of its own, to find those to blame.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from daemonkit.errors import Problem, classify, one_line
from daemonkit.pollers.ahead import Ahead
from daemonkit.pollers.attempts import Known
from daemonkit.pollers.batch import Batch
from daemonkit.pollers.queue import Candidate, Queue
from daemonkit.pollers.work import StillInQueue, Work

logger = logging.getLogger("daemonkit")

MAX_LOOKS = 10
"""How often a tick looks for rows that no other worker has locked."""

MAX_TRIES = 5
"""How often a tick begins anew after a deadlock, before it fails."""

_UNKNOWN = Known(0, False)


class InTransaction:
    """One tick at a time on a queue, in transactions. ``ahead`` has the candidates that earlier
    ticks have left."""

    def __init__(self, work: Work, ahead: Ahead) -> None:
        self._work, self._poller, self._ahead = work, work.poller, ahead

    def tick(self, queue: Queue) -> Batch:
        """Take a batch, and process it."""
        seem_unblocked = self._work.attempts.seem_empty
        candidates = self._ahead.next(queue, self._poller.batch_size, seem_unblocked=seem_unblocked)
        if not candidates:
            return Batch()
        attempted = list(candidates)
        try:
            return self._again_after_deadlocks(lambda: self._all(queue, candidates, attempted))
        except Exception as error:
            if classify(error) is not None or isinstance(error, NotLocked):
                raise
        return self._one_by_one(queue, attempted)

    def _again_after_deadlocks(self, attempt: Callable[[], Batch]) -> Batch:
        """A transaction that the server has rolled back has done nothing: begin it again."""
        for number in range(1, MAX_TRIES + 1):
            try:
                return attempt()
            except Exception as error:
                is_over = number == MAX_TRIES or self._poller.stopping
                if classify(error) is not Problem.RETRY or is_over:
                    raise
                logger.info("%s begins a batch again: %s", self._poller.name, one_line(error))
            self._poller.wait(random.uniform(0.01, 0.05) * number)
        raise AssertionError

    def _all(self, queue: Queue, candidates: list[Candidate], attempted: list[Candidate]) -> Batch:
        """Process a batch in one transaction. ``attempted`` becomes the rows that it has locked:
        if other workers have locked the candidates, they are others."""
        with _transaction(queue.alias) as errors:
            with _ours():
                rows, texts, known = self._locked(queue, candidates)
            keys = [row.pk for row in rows]  # row.delete() forgets it
            attempted[:] = [Candidate(key, texts[key]) for key in keys]
            done = keys[: self._work.each(rows, errors.refuse)]
            self._finish(queue, done, texts, known)
            errors.refuse()
        return Batch(done=len(done))

    def _locked(
        self, queue: Queue, candidates: list[Candidate], looks: int = MAX_LOOKS
    ) -> tuple[list[Any], dict[Any, str], dict[str, Known]]:
        """Lock rows until there are enough; if other workers have locked the first, later ones."""
        rows: list[Any] = []
        texts: dict[Any, str] = {}
        known: dict[str, Known] = {}
        size = self._poller.batch_size
        for look in range(1, looks + 1):
            locked = queue.lock(candidates)
            if look == 1 and looks > 1:
                self._ahead.note(len(locked), len(candidates))
            texts |= {each.pk: each.text for each in candidates}
            # Between the first SELECT and the lock another worker may have failed at these rows,
            # and only the table of failures shows that.
            known |= self._work.attempts.known([texts[row.pk] for row in locked])
            rows += [row for row in locked if not known.get(texts[row.pk], _UNKNOWN).is_blocked]
            if 2 * len(rows) >= size or len(candidates) < size or look == looks:
                break
            # From the head of the queue: the first candidates may have been read ahead, or blocked.
            later = queue.candidates(size + len(texts))
            candidates = [each for each in later if each.pk not in texts][: size - len(rows)]
            if not candidates:
                break
        return rows, texts, known

    def _finish(
        self, queue: Queue, keys: Sequence[Any], texts: dict[Any, str], known: dict[str, Known]
    ) -> None:
        """Make the processed rows leave the queue, or raise ``StillInQueue``."""
        if not keys:
            return
        done = self._poller.done
        queue.finish(keys, done)
        if done != "delete" and queue.still_waiting(keys):
            raise StillInQueue
        self._work.attempts.forget([texts[key] for key in keys if texts[key] in known])

    def _one_by_one(self, queue: Queue, candidates: Sequence[Candidate]) -> Batch:
        batch = Batch()
        for number, candidate in enumerate(candidates):
            if number and self._poller.stopping:
                break
            try:
                one = self._again_after_deadlocks(functools.partial(self._one, queue, candidate))
            except Exception as error:
                if classify(error) is not None or isinstance(error, NotLocked):
                    raise
                # COMMIT itself has failed, as with a deferred constraint.
                one = self._failed(candidate, self._work.attempts.known([candidate.text]), error)
            batch.done += one.done
            batch.failed += one.failed
            self._work.beat()
        return batch

    def _one(self, queue: Queue, candidate: Candidate) -> Batch:
        """Process one row in a transaction of its own. If it fails, that is noted before the lock
        ends: no other worker takes the row in between."""
        with _transaction(queue.alias) as errors:
            with _ours():
                rows, texts, known = self._locked(queue, [candidate], looks=1)
            if not rows:
                return Batch()
            attempt = _Attempt(queue.alias)
            try:
                self._work.each(rows, errors.refuse)
                self._finish(queue, [candidate.pk], texts, known)
                errors.refuse()
            except Exception as error:
                errors.refuse()
                if classify(error) is not None:
                    raise
                attempt.roll_back()
                return self._failed(candidate, known, error)
        return Batch(done=1)

    def _failed(self, candidate: Candidate, known: dict[str, Known], error: Exception) -> Batch:
        attempts = known.get(candidate.text, _UNKNOWN).attempts
        self._work.fail(candidate.text, attempts + 1, error)
        return Batch(failed=1)


class _Attempt:
    """A savepoint before the work on a row. It is not used after a deadlock."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._hooks = len(connections[alias].run_on_commit)
        self._savepoint = _create_savepoint(using=alias)

    def roll_back(self) -> None:
        """Undo the work, also what it wanted to be done on commit."""
        transaction.set_rollback(False, using=self._alias)  # or Django would send nothing
        transaction.savepoint_rollback(self._savepoint, using=self._alias)
        del connections[self._alias].run_on_commit[self._hooks :]


_create_savepoint: Any = getattr(transaction, "savepoint_create", None) or transaction.savepoint
"""Django 6.1 has given it a new name."""


class NotLocked(Exception):
    """An error of daemonkit's own statements, which no row is to blame for."""


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    """Statements of daemonkit's own: their errors fail the tick, not a row."""
    try:
        yield
    except (Error, RuntimeError) as error:
        if classify(error) is not None:
            raise
        raise NotLocked(one_line(error)) from error


class _Errors:
    """The errors of a transaction after which it must not commit, even if they were caught.

    After a deadlock MySQL has rolled back all of it: what is committed next would lack its
    beginning. No savepoint is left, either.
    """

    def __init__(self) -> None:
        self._first: Exception | None = None

    def witness(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        """An execute wrapper of Django's."""
        try:
            return execute(sql, params, many, context)
        except Error as error:
            if classify(error) in (Problem.RETRY, Problem.LOST):
                self._first = self._first or error
            raise

    def refuse(self) -> None:
        """Raise the first such error, if there was one."""
        if self._first is not None:
            raise self._first


@contextlib.contextmanager
def _transaction(alias: str) -> Iterator[_Errors]:
    """A transaction under READ COMMITTED, whatever the connection's own level is.

    Under REPEATABLE READ a failure that another worker has committed could not be seen.
    """
    errors = _Errors()
    connection = connections[alias]
    with contextlib.ExitStack() as stack:
        with _ours():
            stack.enter_context(transaction.atomic(using=alias, durable=True))
            _read_committed(connection)
        stack.enter_context(connection.execute_wrapper(errors.witness))
        try:
            yield errors
        except Exception as error:
            if classify(error) is None:
                errors.refuse()
            raise


def _read_committed(connection: BaseDatabaseWrapper) -> None:
    if connection.vendor == "sqlite" or len(connection.atomic_blocks) > 1:
        return  # in the transaction of a test
    if connection.vendor == "mysql" and vars(connection).get("isolation_level") == "read committed":
        return
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
