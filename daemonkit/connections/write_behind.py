"""A write-behind queue: a thread collects entries for a moment and writes them together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Entry = TypeVar("Entry")

GATHER_SECONDS = 0.25
"""How long entries are collected before they are written."""

BATCH_SIZE = 500
"""The most entries that are written in one transaction."""

MAX_ENTRIES = 20_000
"""The most entries that are kept while they cannot be written. Beyond it the oldest are lost."""

LAST_RETRY_SECONDS = 0.1
"""The pause between two attempts while the queue is being closed."""


class WriteBehind(Generic[Entry]):
    """Takes entries from any thread and writes them a moment later.

    ``write`` gets the oldest entries, at most ``BATCH_SIZE``. If it raises, they are kept and
    written again after ``pause(failures)`` seconds. ``on_written`` is called after each batch,
    ``on_failure`` with the error and the number of entries lost so far. Both are called on the
    queue's thread. ``is_temporary`` decides whether to retry while the queue is being closed.
    """

    def __init__(
        self,
        write: Callable[[list[Entry]], None],
        *,
        name: str,
        pause: Callable[[int], float],
        on_written: Callable[[], None],
        on_failure: Callable[[Exception, int], None],
        is_temporary: Callable[[Exception], bool] = lambda error: True,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._write, self._name, self._pause = write, name, pause
        self._on_written, self._on_failure = on_written, on_failure
        self._is_temporary = is_temporary
        self._max_entries = max_entries
        self._entries: deque[Entry] = deque()
        self._batch: list[Entry] = []  # what is being written
        self._lost = 0
        self._changed = threading.Condition()
        self._is_idle = False
        self._hurry = threading.Event()
        self._give_up_at = float("inf")
        self._thread: threading.Thread | None = None

    def put(self, entry: Entry) -> None:
        """Queue an entry. Returns at once."""
        with self._changed:
            self._entries.append(entry)
            self._drop_oldest()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            elif self._is_idle:
                self._changed.notify()

    def pending(self) -> list[Entry]:
        """The entries that are not written yet, the oldest first."""
        with self._changed:
            return [*self._batch, *self._entries]

    def hurry(self) -> None:
        """Write entries without delay from now on, because the process may end at any moment."""
        self._hurry.set()

    def close(self, within: float) -> int:
        """Write the remaining entries, in at most ``within`` seconds. Return how many are left.

        Do not call ``put()`` after this.
        """
        with self._changed:
            self._give_up_at = time.monotonic() + within
            self._hurry.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(within)
        return len(self.pending())

    # The thread

    def _run(self) -> None:
        failures = 0
        while self._wait_for_entries():
            self._gather(failures)
            error = self._write_batch()
            if error is None:
                failures = 0
                self._on_written()
            else:
                failures += 1
                self._on_failure(error, self._lost)
                if self._is_closing and not self._is_temporary(error):
                    return

    def _wait_for_entries(self) -> bool:
        """Wait. False if the queue is closed and has no entries left, or no time to write them."""
        with self._changed:
            self._is_idle = True
            self._changed.wait_for(lambda: self._entries or self._is_closing)
            self._is_idle = False
            return bool(self._entries) and time.monotonic() < self._give_up_at

    @property
    def _is_closing(self) -> bool:
        return self._give_up_at < float("inf")

    def _gather(self, failures: int) -> None:
        if self._hurry.is_set():
            time.sleep(LAST_RETRY_SECONDS if failures else 0)
        else:
            self._hurry.wait(self._pause(failures) if failures else GATHER_SECONDS)

    def _write_batch(self) -> Exception | None:
        with self._changed:
            size = min(BATCH_SIZE, len(self._entries))
            batch = self._batch = [self._entries.popleft() for _ in range(size)]
        error = None
        try:
            self._write(batch)
        except Exception as raised:
            error = raised
        with self._changed:
            self._batch = []
            if error is not None:
                self._entries.extendleft(reversed(batch))
                self._drop_oldest()
        return error

    def _drop_oldest(self) -> None:
        while len(self._entries) > self._max_entries:
            self._entries.popleft()
            self._lost += 1
