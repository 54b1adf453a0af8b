"""``assert_survives()``: try common failures on a daemon, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from django.db import connections

from daemonkit.command import BaseDaemonCommand
from daemonkit.jobs.schedule import jobs_of
from daemonkit.settings.settings import leads
from daemonkit.testing.running import DaemonName, command_of
from daemonkit.testing.survival.arena import Arena
from daemonkit.testing.survival.examination import STOP_SECONDS, Examination
from daemonkit.testing.survival.stage import stage_of
from daemonkit.testing.survival.trial import MAX_TICKS
from daemonkit.testing.survival.troubles import Fault, Trouble, report


def assert_survives(
    daemon: DaemonName,
    *,
    using: str = "default",
    arrange: Callable[[], object] | None = None,
    observe: Callable[[], object] | None = None,
    leave_out: Collection[Trouble] = (),
    timeout: float = 20.0,
    **options: Any,
) -> None:
    """Try each of the common troubles on a daemon, with its own database.

    Each trial is a forked child with a fake clock, on the present state of the database ``using``.
    ``arrange`` is called before each trial, to prepare what is not in the database, such as files.
    ``observe`` is called after each trial; it returns a value that must be the same as without
    trouble. A trial that takes longer than ``timeout`` fails. ``options`` are the daemon's.

    Raises ``AssertionError`` with a report of all troubles if one of them has shown a fault,
    ``ValueError`` for a daemon with ``serve()``, and ``RuntimeError`` inside a transaction, which a
    child cannot see; the message says what to do instead.
    """
    if connections[using].in_atomic_block:
        raise RuntimeError(
            "assert_survives() runs the daemon in processes that do not see an open transaction: "
            "use TransactionTestCase, or with pytest the fixture transactional_db"
        )
    command, stage = command_of(daemon), stage_of(using)
    if command.has_serve:
        raise ValueError(
            f"assert_survives() tries ticks and jobs, and {command.name} has serve(): test the "
            f"functions that it calls, which fresh_connections decorates"
        )
    leave_out = {*leave_out, *_not_applicable(command, using, options)}
    try:
        arena = Arena(daemon, using, stage, arrange, observe, timeout)
        faults = [
            fault
            for job in [job.name for job in jobs_of(type(command))] or [""]
            for fault in _examine(arena, command, job, options, leave_out)
        ]
    finally:
        stage.close()
    if faults:
        raise AssertionError(report(command.name, connections[using].vendor, faults, leave_out))


def _examine(
    arena: Arena,
    command: BaseDaemonCommand,
    job: str,
    options: dict[str, Any],
    leave_out: Collection[Trouble],
) -> list[Fault]:
    """Examine a loop, or one of the daemon's jobs."""
    troubles = [trouble for trouble in Trouble if trouble not in leave_out]
    settings = {**_OPTIONS, **options, **({"job": [job]} if job else {})}
    found = Examination(arena, settings).examine(troubles)
    return [Fault(each.trouble, f"{job}: {each.what}") for each in found] if job else found


def _not_applicable(
    command: BaseDaemonCommand, using: str, options: dict[str, Any]
) -> set[Trouble]:
    """The troubles that cannot occur: a SQLite file cannot be unreachable, and of two copies with a
    leader only one works."""
    found = set()
    if connections[using].vendor == "sqlite":
        found = {Trouble.OUTAGE_AT_START, Trouble.OUTAGE_LATER}
    return found | {Trouble.TWO_COPIES} if leads(command, options) else found


_OPTIONS: dict[str, Any] = {
    "pulse": 3600.0,
    "leader": False,
    "skip_checks": True,
    "raise_errors": False,
    "max_failures": "none",
    "max_ticks": MAX_TICKS,
    "stop_timeout": STOP_SECONDS,
}
