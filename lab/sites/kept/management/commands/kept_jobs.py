"""Many jobs of one second in a daemon, with and without the ledger."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from daemonkit import BaseDaemonCommand, Every, Iteration, Moment, job
from lab.sites.work import Runs, say


class Offset(Every):
    """An interval that begins a little later."""

    def __init__(self, first: float) -> None:
        super().__init__(seconds=1)
        object.__setattr__(self, "first", first)

    def due(self, last: Iteration | None, begun: Moment, now: Moment) -> Moment:
        first: float = self.first  # type: ignore[attr-defined]
        return begun.later(0.5 + first) if last is None else super().due(last, begun, now)


class Command(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--jobs", type=int)
        parser.add_argument("--seconds", type=float)
        parser.add_argument("--spread", action="store_true")
        parser.add_argument("--ledger", action="store_true")
        parser.add_argument("--added", action="store_true")

    def handle(
        self, *, jobs: int, seconds: float, spread: bool, ledger: bool, added: bool, **options: Any
    ) -> None:
        if ledger:
            call_command("migrate", verbosity=0)
        runs = Runs(seconds)
        members: dict[str, Any] = {"ledger": ledger}
        offsets = [number / jobs if spread else 0.0 for number in range(jobs)]
        if added:
            members["add_jobs"] = adding(offsets, runs)
        else:
            for number, offset in enumerate(offsets):
                members[f"job_{number}"] = job(Offset(offset))(made(number, offset, runs))
        daemon = type("Command", (BaseDaemonCommand,), members)()
        runs.begin()
        call_command(daemon, max_seconds=seconds + 10.0, skip_checks=True)


def made(number: int, offset: float, runs: Runs) -> Callable[..., Any]:
    def run(self: BaseDaemonCommand) -> None:
        begun = self.life.begun.monotonic + 0.5 + offset
        runs.note((time.monotonic() - begun) % 1.0)
        if runs.is_over() and not self.stopping:
            self.life.stop.ask("measured")
            say(runs.result())

    run.__name__ = f"job_{number}"
    return run


def adding(offsets: list[float], runs: Runs) -> Callable[..., Any]:
    """The lines of ``bare_jobs``, in ``add_jobs()``."""

    def add_jobs(self: BaseDaemonCommand, scheduler: Any) -> None:
        begun = time.time() + 1.0

        def work(offset: float) -> None:
            runs.note((time.time() - begun - offset) % 1.0)
            if runs.is_over() and not self.stopping:
                self.life.stop.ask("measured")
                say(runs.result())

        for number, offset in enumerate(offsets):
            start = datetime.fromtimestamp(begun + offset, UTC)
            scheduler.add_job(
                work, "interval", args=[offset], seconds=1, start_date=start, next_run_time=start,
                id=f"job_{number}",
            )  # fmt: skip

    return add_jobs
