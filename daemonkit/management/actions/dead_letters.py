"""``daemons dead-letters``: the rows that a poller has given up, to try again or to drop."""

from __future__ import annotations

from typing import Any

import django.db
from django.core.management.base import CommandError

from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.connections.units import fresh_connections
from daemonkit.discovery import find_daemon
from daemonkit.errors import Problem, classify, one_line
from daemonkit.exits import Exit
from daemonkit.management.actions.action import Action, Request
from daemonkit.models import PollerRow
from daemonkit.pollers.keys import key_of, shown
from daemonkit.pollers.poller import ModelPoller
from daemonkit.settings.parsing import at_least_one, usage

CHUNK = 500
"""How many rows one statement drops at most."""


class DeadLetters(Action):
    name = "dead-letters"
    help = "the rows that a poller has given up: list them, try them again, drop them"
    has_format = True

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("name", help="the poller")
        parser.add_argument("--limit", metavar="N", default=100, help="at most the oldest N (100)")
        choice = parser.add_mutually_exclusive_group()
        choice.add_argument("--retry", metavar="KEY|all", help="try the row again, from the first")
        choice.add_argument("--drop", metavar="KEY|all", help="let the row leave the queue as done")

    def run(self, request: Request) -> None:
        poller, options = _poller(request.options["name"]), request.options
        try:
            with fresh_connections:
                if options["retry"]:
                    _retry(request, poller, options["retry"])
                elif options["drop"]:
                    _drop(request, poller, options["drop"])
                else:
                    _list(request, poller, at_least_one("limit", options["limit"]))
        except django.db.Error as error:
            raise _unread(poller, error) from error


def _poller(name: str) -> ModelPoller:
    daemon = find_daemon(name)
    if not isinstance(daemon, ModelPoller):
        raise usage(f"{name} is no ModelPoller, and has no dead letters")
    daemon.check_class()
    return daemon


def _list(request: Request, poller: ModelPoller, limit: int) -> None:
    letters = [
        {
            "key": shown(row.key),
            "attempts": row.attempts,
            "since": row.not_before,
            "error": row.error,
        }
        for row in poller.attempts.dead()[:limit]
    ]
    if request.wants_json:
        request.print_json(letters)
        return
    request.print_table(
        [
            (
                str(row["key"]),
                f"{row['attempts']} attempts",
                f"{row['since']:%Y-%m-%d %H:%M:%S}",
                str(row["error"]),
            )
            for row in letters
        ]
    )
    if not letters:
        request.print(f"{poller.name} has no dead letters.")
    elif len(letters) == limit:
        request.print(f"The oldest {limit}; --limit shows more.")


def _retry(request: Request, poller: ModelPoller, which: str) -> None:
    count = poller.attempts.revive(which)
    _require(count, poller, which)
    request.print(f"{count} dead {_letters(count)} of {poller.name} will be tried again.")


def _drop(request: Request, poller: ModelPoller, which: str) -> None:
    """Let rows leave the queue without ``process()``: all at once, in one transaction."""
    if poller.done is None:
        raise usage(
            f"{poller.name} does not say done = ..., so only process() knows how a row leaves the "
            f"queue: change or delete the row itself, and its dead letter goes with it"
        )
    attempts, queue = poller.attempts, poller.queue()
    with django.db.transaction.atomic(using=attempts.alias):
        texts = list(attempts.named(which).values_list("key", flat=True))
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            queue.finish([key_of(queue.model, text) for text in chunk], poller.done)
            attempts.forget(chunk)
    _require(len(texts), poller, which)
    request.print(f"{len(texts)} dead {_letters(len(texts))} of {poller.name} dropped.")


def _require(count: int, poller: ModelPoller, which: str) -> None:
    if not count and which != "all":
        raise usage(f"{poller.name} has no dead letter {which}: "
                     f"`manage.py daemons dead-letters {poller.name}` lists them")  # fmt: skip


def _letters(count: int) -> str:
    return "letter" if count == 1 else "letters"


def _unread(poller: ModelPoller, error: django.db.Error) -> CommandError:
    alias = poller.attempts.alias
    is_refused = classify(error) is Problem.MISCONFIGURED
    is_missing = not is_refused and is_table_missing(alias, PollerRow._meta.db_table)
    how_to_fix = f": {how_to_migrate(alias)}" if is_missing else ""
    return CommandError(
        f"the dead letters of {poller.name} cannot be read: {one_line(error)}{how_to_fix}",
        returncode=Exit.MISCONFIGURED if is_refused or is_missing else Exit.TICK_FAILED,
    )
