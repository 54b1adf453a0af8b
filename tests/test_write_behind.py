"""The write-behind queue: what is put is written a moment later, in order, and nothing is lost
without a word."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from daemonkit.connections import write_behind
from daemonkit.connections.write_behind import WriteBehind
from lab.waiting import eventually


class Table:
    """Where the entries go, and what the queue says of them."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.errors: list[tuple[str, int]] = []
        self.trouble: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.is_writing = False

    def write(self, entries: list[int]) -> None:
        self.is_writing = True
        assert self.gate.wait(20)
        self.is_writing = False
        if self.trouble is not None:
            raise self.trouble
        self.batches.append(list(entries))

    def note_failure(self, error: Exception, lost: int) -> None:
        self.errors.append((str(error), lost))

    @property
    def entries(self) -> list[int]:
        return [entry for batch in self.batches for entry in batch]


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def queue(table: Table, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteBehind[int]]:
    monkeypatch.setattr(write_behind, "GATHER_SECONDS", 0.02)
    monkeypatch.setattr(write_behind, "BATCH_SIZE", 10)
    queue = WriteBehind[int](
        table.write,
        name="queue",
        pause=lambda failures: 0.01,
        on_written=lambda: None,
        on_failure=table.note_failure,
        is_temporary=lambda error: isinstance(error, ConnectionError),
        max_entries=30,
    )
    yield queue
    table.gate.set()
    table.trouble = None
    queue.close(5)


def put(queue: WriteBehind[int], *entries: int) -> None:
    for entry in entries:
        queue.put(entry)


def test_entries_gather_and_are_written_in_order_and_in_batches(
    table: Table, queue: WriteBehind[int]
) -> None:
    put(queue, *range(25))
    eventually(lambda: len(table.entries) == 25)
    assert table.entries == list(range(25))
    assert len(table.batches) >= 3
    assert max(len(batch) for batch in table.batches) <= 10
    put(queue, 25)
    eventually(lambda: table.entries[-1] == 25)


def test_many_threads_put_and_each_entry_is_written_once(
    table: Table, queue: WriteBehind[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_max_entries", 10_000)
    threads = [
        threading.Thread(target=put, args=(queue, *range(start, start + 200)))
        for start in range(0, 1600, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: len(table.entries) == 1600)
    assert sorted(table.entries) == list(range(1600))


def test_put_never_waits_for_a_write_and_what_is_being_written_is_still_pending(
    table: Table, queue: WriteBehind[int]
) -> None:
    table.gate.clear()
    put(queue, 1)
    eventually(lambda: table.is_writing)
    put(queue, 2)
    assert queue.pending() == [1, 2]


def test_what_cannot_be_written_is_kept_and_written_later(
    table: Table, queue: WriteBehind[int]
) -> None:
    table.trouble = ConnectionError("away")
    put(queue, *range(20))
    eventually(lambda: len(table.errors) >= 3)
    assert queue.pending() == list(range(20))
    table.trouble = None
    eventually(lambda: table.entries == list(range(20)))


def test_beyond_the_limit_the_oldest_are_lost_and_counted(
    table: Table, queue: WriteBehind[int]
) -> None:
    table.trouble = ConnectionError("away")
    put(queue, *range(42))
    eventually(lambda: table.errors[-1:] == [("away", 12)])
    table.trouble = None
    eventually(lambda: table.entries == list(range(12, 42)))


def test_the_end_waits_for_what_is_left(table: Table, queue: WriteBehind[int]) -> None:
    put(queue, *range(25))
    assert queue.close(20) == 0
    assert table.entries == list(range(25))


def test_the_end_tries_again_what_may_pass_and_is_bounded(
    table: Table, queue: WriteBehind[int]
) -> None:
    table.trouble = ConnectionError("away")
    put(queue, 1, 2)
    began = time.monotonic()
    assert queue.close(0.3) == 2
    assert time.monotonic() - began < 5
    assert len(table.errors) >= 2


def test_the_end_does_not_wait_for_what_will_not_pass(
    table: Table, queue: WriteBehind[int]
) -> None:
    table.trouble = LookupError("no table")
    put(queue, 1, 2)
    began = time.monotonic()
    assert queue.close(60) == 2
    assert time.monotonic() - began < 30


def test_a_write_that_hangs_holds_up_the_end_no_longer_than_was_said(
    table: Table, queue: WriteBehind[int]
) -> None:
    table.gate.clear()
    put(queue, 1, 2)
    eventually(lambda: table.is_writing)
    assert queue.close(0.1) == 2
