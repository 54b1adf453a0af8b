"""``@job(retries=...)``: a failed run is tried again before its next due time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command

from daemonkit import Backoff, BaseDaemonCommand, Cron, Every, Poll, job
from daemonkit.iteration import Iteration
from daemonkit.jobs.reading import Choice, read
from daemonkit.signals import iteration_finished
from daemonkit.testing import FakeClock
from tests.kit.simulated import wall

NIGHT = wall("2026-03-02 02:59:50")
NIGHTLY = Cron("0 3 * * *", timezone="UTC")
QUICK = Backoff(first=10, factor=1, cap=10)
Tries = list[tuple[str, int]]


def daemon(work: Callable[[int], Any], tries: Tries, **details: Any) -> type[BaseDaemonCommand]:
    """A daemon with one job at 03:00, which notes its tries and calls ``work(attempt)``."""

    class Command(BaseDaemonCommand):
        backoff = QUICK

        @job(NIGHTLY, **details)
        def report(self) -> Any:
            assert self.due is not None
            tries.append((f"{self.due:%d %H:%M}", self.attempt))
            return work(self.attempt)

    return Command


def live(command: type[BaseDaemonCommand], hours: float = 23) -> list[Iteration]:
    """Run it for this long, from ten seconds before three."""
    found: list[Iteration] = []

    def note(iteration: Iteration, **_: Any) -> None:
        found.append(iteration)

    iteration_finished.connect(note, sender=command)
    call_command(command(), clock=FakeClock(NIGHT), pulse=60, raise_errors=False,
                 max_seconds=hours * 3600)  # fmt: skip
    return found


def until(attempt: int) -> Callable[[int], str]:
    """Work that fails before this try."""

    def work(present: int) -> str:
        if present < attempt:
            raise ValueError(f"try {present}")
        return f"sent in try {present}"

    return work


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_failed_run_is_tried_again_and_each_try_is_in_the_ledger(
    database: str, exclusive: bool
) -> None:
    tries: Tries = []
    iterations = live(daemon(until(3), tries, retries=3, exclusive=exclusive))
    assert tries == [("02 03:00", 1), ("02 03:00", 2), ("02 03:00", 3)]
    assert [each.failures for each in iterations] == [1, 2, 0]
    (row,) = read(Choice())
    assert (row["status"], row["attempt"], row["result"]) == ("ran", 3, "sent in try 3")
    assert row["tries"] == ["ValueError: try 1", "ValueError: try 2"]


def test_the_pauses_between_tries_are_those_of_the_back_off(database: str) -> None:
    tries: Tries = []
    first, second, third = live(daemon(until(3), tries, retries=3))
    for before, after in ((first, second), (second, third)):
        assert after.started.wall - before.ended.wall == pytest.approx(before.pause, abs=0.01)
        assert 5 <= before.pause <= 10


def test_after_the_last_try_the_next_due_time_comes(database: str) -> None:
    tries: Tries = []
    live(daemon(until(9), tries, retries=2), hours=25)
    assert tries == [(f"{day} 03:00", attempt) for day in ("02", "03") for attempt in (1, 2, 3)]
    states = [(row["status"], row["attempt"]) for row in read(Choice())]
    assert states == [("failed", 3), ("failed", 3)]


def test_without_retries_a_failed_run_waits_for_its_next_due_time(database: str) -> None:
    tries: Tries = []
    live(daemon(until(2), tries), hours=23)
    assert tries == [("02 03:00", 1)]


def test_an_error_of_dont_retry_is_not_tried_again(database: str) -> None:
    tries: Tries = []
    live(daemon(until(9), tries, retries=3, dont_retry=(ValueError,)))
    assert tries == [("02 03:00", 1)]


def test_no_try_begins_after_the_next_due_time(database: str) -> None:
    tries: list[int] = []

    class Command(BaseDaemonCommand):
        backoff = Backoff(first=60, factor=1, cap=60)

        @job(Every(seconds=20), retries=5)
        def often(self) -> None:
            tries.append(self.attempt)
            raise ValueError("no")

    live(Command, hours=0.1)
    assert set(tries) == {1}
    assert len(tries) > 2


def test_a_run_that_has_skipped_is_not_tried_again(database: str) -> None:
    tries: Tries = []

    class Command(BaseDaemonCommand):
        @job(NIGHTLY, retries=3)
        def report(self) -> None:
            tries.append(("", self.attempt))
            self.skip("closed on Sundays")

    live(Command)
    assert tries == [("", 1)]


@pytest.mark.parametrize(
    ("details", "sentence"),
    [
        ({"retries": -1}, "retries is how often a failed run is tried again, not -1"),
        ({"retries": "3"}, "retries is how often a failed run is tried again, not '3'"),
        ({"retries": True}, "retries is how often a failed run is tried again, not True"),
        ({"dont_retry": "ValueError"}, "dont_retry takes exception classes, not 'ValueError'"),
    ],
)
def test_bad_retries_are_refused_in_one_sentence(details: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^job turn\(\): ") as refused:

        class Command(BaseDaemonCommand):
            @job(Every(seconds=5), **details)
            def turn(self) -> None: ...

    assert sentence in str(refused.value)


def test_retries_make_no_sense_with_a_poll() -> None:
    with pytest.raises(ValueError, match="whose next run is a new try"):

        class Command(BaseDaemonCommand):
            @job(Poll(), retries=3)
            def turn(self) -> None: ...
