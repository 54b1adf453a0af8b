"""Waiting in tests: for a condition with a deadline, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def eventually(
    condition: Callable[[], Result],
    within: float = 5.0,
    what: str = "",
    every: float = 0.01,
) -> Result:
    """Call ``condition`` until it returns a true value, and return that.

    Raises ``AssertionError`` after ``within`` seconds.
    """
    deadline = time.monotonic() + within
    while not (answer := condition()):
        if time.monotonic() > deadline:
            what = what or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"not within {within:g} s: {what} (last answer: {answer!r})")
        time.sleep(every)
    return answer
