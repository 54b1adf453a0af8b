"""``claim = "lease"``: rows are leased by a commit first, and then processed, at least once.

The leases are renewed while the tick works. Those of a process that has died end after
``claim_seconds``, and other workers take its rows. A tick whose leases are lost is cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NamedTuple

from django.db import transaction

from daemonkit.connections.pool import Pool
from daemonkit.errors import classify
from daemonkit.pollers.batch import Batch
from daemonkit.pollers.holding import Held, LeaseLost
from daemonkit.pollers.queue import Candidate, Queue
from daemonkit.pollers.work import StillInQueue, Work

FINISH_INTERVAL = 0.1
"""Seconds between two commits of rows that are done. A row that is done and not yet committed when
the process is killed is done again."""

LOOK_INTERVAL = 0.1
"""Seconds between two looks whether the daemon must stop, while all threads work."""


class Taken(NamedTuple):
    """A row that is leased to this tick."""

    row: Any
    pk: Any
    text: str
    attempts: int


class Leased:
    """One tick at a time on a queue, with leases. ``pool`` has ``threads`` that process the rows of
    a batch; without it the tick does."""

    def __init__(self, work: Work, pool: Pool | None, threads: int = 1) -> None:
        self._work, self._poller = work, work.poller
        self._pool, self._threads = pool, threads

    def tick(self, queue: Queue, held: Held) -> Batch:
        """Lease a batch, and process it. ``held`` are the leases of this tick."""
        candidates = queue.candidates(self._poller.batch_size)
        if not candidates:
            return Batch()
        with held.renewed():
            taken = self._take(queue, held, candidates)
            return _Shift(self._work, queue, held).run(taken, self._pool, self._threads)

    def _take(self, queue: Queue, held: Held, candidates: Sequence[Candidate]) -> list[Taken]:
        """Lease rows, and then read them: only now is it certain that no other worker has them."""
        ours = held.claim([each.text for each in candidates])
        leased = [each for each in candidates if each.text in ours]
        rows = {row.pk: row for row in queue.fetch(leased)} if leased else {}
        held.give_back([each.text for each in leased if each.pk not in rows])
        return [
            Taken(rows[each.pk], each.pk, each.text, ours[each.text])
            for each in leased
            if each.pk in rows
        ]


class _Shift:
    """The work on one leased batch."""

    def __init__(self, work: Work, queue: Queue, held: Held) -> None:
        self._work, self._poller, self._queue, self._held = work, work.poller, queue, held
        self._batch = Batch()
        self._over: list[tuple[Taken, BaseException | None]] = []
        self._finished_at = time.monotonic()

    def run(self, taken: list[Taken], pool: Pool | None, threads: int) -> Batch:
        """Process the rows until the daemon must stop, and give the rest back."""
        try:
            if self._poller.takes_batches:
                self._process_batch(taken)
            else:
                results = _on_threads(self, taken, pool, threads) if pool else _here(self, taken)
                for result in results:
                    self._over.append(result)
                    self._finish_if_due()
            self._finish()
        finally:
            self._held.give_back_the_rest()
        return self._batch

    def process(self, each: Taken) -> None:
        with self._held.working():
            self._poller.process(each.row)

    def _process_batch(self, taken: list[Taken]) -> None:
        """Process all at once. If that fails, each row by itself, to find those to blame."""
        if not taken:
            return
        try:
            self._process_together(taken)
            self._over += [(each, None) for each in taken]
        except Exception as error:
            if not _is_the_rows(error):
                raise
            for each in taken:
                if self._poller.stopping:
                    break
                self._over.append((each, _error_of(self._process_together, [each])))
                self._finish_if_due()

    def _process_together(self, taken: list[Taken]) -> None:
        with self._held.working():
            self._poller.process_batch([each.row for each in taken])

    @property
    def must_stop(self) -> bool:
        return self._poller.stopping

    def look(self) -> None:
        """Between two rows: raise ``LeaseLost`` if the leases are lost."""
        self._held.refuse_if_lost()
        self._finish_if_due()

    def _finish_if_due(self) -> None:
        self._work.beat()
        if self._over and time.monotonic() - self._finished_at >= FINISH_INTERVAL:
            self._finish()

    def _finish(self) -> None:
        """Commit what has become of the rows: those done leave the queue, failures are noted."""
        over, self._over = self._over, []
        self._finished_at = time.monotonic()
        for _, error in over:
            if error is not None and not _is_the_rows(error):
                raise error
        done = [each for each, error in over if error is None]
        failed = [(each, error) for each, error in over if error is not None]
        failed += [(each, StillInQueue()) for each in self._leave(done)]
        for each, error in failed:
            self._work.fail(each.text, each.attempts + 1, error, self._held.note_failure)
        self._batch.done += len(over) - len(failed)
        self._batch.failed += len(failed)

    def _leave(self, done: list[Taken]) -> list[Taken]:
        """Make rows leave the queue, if their leases still hold. Returns those that did not."""
        if not done:
            return []
        keys, rule = [each.pk for each in done], self._poller.done
        with transaction.atomic(using=self._queue.alias, durable=True):
            self._queue.finish(keys, rule)
            left = set() if rule == "delete" else self._queue.still_waiting(keys)
            self._held.release([each.text for each in done if each.pk not in left])
        return [each for each in done if each.pk in left]


def _is_the_rows(error: BaseException) -> bool:
    """Whether the row is to blame: not the database, a lost lease, or what ends the process."""
    is_ordinary = isinstance(error, Exception) and not isinstance(error, LeaseLost)
    return is_ordinary and classify(error) is None


_Result = tuple[Taken, BaseException | None]


def _here(shift: _Shift, taken: list[Taken]) -> Iterator[_Result]:
    for number, each in enumerate(taken):
        if number and shift.must_stop:
            return
        shift.look()
        yield each, _error_of(shift.process, each)


def _on_threads(shift: _Shift, taken: list[Taken], pool: Pool, threads: int) -> Iterator[_Result]:
    """Process rows on the threads of a pool, and yield them as they end."""
    waiting, running = list(reversed(taken)), dict[Future[None], Taken]()
    try:
        while waiting or running:
            while waiting and len(running) < 2 * threads and not shift.must_stop:
                each = waiting.pop()
                running[pool.submit(shift.process, each)] = each
            if shift.must_stop:
                waiting.clear()
                _cancel(running)
            over, _ = wait(running, LOOK_INTERVAL, FIRST_COMPLETED)
            for future in over:
                yield running.pop(future), future.exception()
            shift.look()
    finally:  # no row is worked on after its tick
        _cancel(running)
        wait(running)


def _cancel(running: dict[Future[None], Taken]) -> None:
    for future in [future for future in running if future.cancel()]:
        del running[future]


def _error_of(work: Callable[..., None], *arguments: Any) -> Exception | None:
    """Call ``work`` and return its error, if any."""
    try:
        work(*arguments)
    except Exception as error:
        return error
    return None
