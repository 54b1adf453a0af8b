"""What one tick of a poller came to."""

from __future__ import annotations


class Batch:
    """The rows that a tick has taken: how many are done, and how many have failed.

    It is true if there were any, so that ``Poll`` looks again at once. ``empty_ticks`` is how many
    ticks in a row have found nothing.
    """

    __slots__ = ("done", "empty_ticks", "failed")

    def __init__(self, done: int = 0, failed: int = 0, empty_ticks: int = 0) -> None:
        self.done, self.failed, self.empty_ticks = done, failed, empty_ticks

    def __bool__(self) -> bool:
        return bool(self.done or self.failed)

    def __str__(self) -> str:
        return f"{rows(self.done)}, {self.failed} failed" if self.failed else rows(self.done)


def rows(number: int) -> str:
    """A number of rows, in words."""
    return f"{number} row{'' if number == 1 else 's'}"
