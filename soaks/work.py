"""What a unit of work of the soaks does, and which of its rows must be there afterwards.

Each function writes its own row, once at the most. Its name says how it ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, connection, transaction

from daemonkit import fresh_connections, release_connections


class Mistake(Exception):
    """A handler's own error."""


def execute(sql: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        if cursor.description:
            cursor.fetchall()


def insert(note: str) -> None:
    execute("INSERT INTO entry (note) VALUES (%s)", note)


def look(_: str = "") -> None:
    execute("SELECT COUNT(*) FROM entry")


def break_a_rule() -> None:
    """Raise an IntegrityError."""
    execute("INSERT INTO entry (id, note) VALUES (-1, 'twice'), (-1, 'twice')")


def ask_for_nothing() -> None:
    """Raise another error of the database."""
    execute("SELECT 1 FROM no_such_table")


def commit_by_autocommit(note: str) -> None:
    look()
    insert(note)


def commit_by_atomic(note: str) -> None:
    with transaction.atomic():
        insert(note)
        look()


def commit_though_a_savepoint_fails(note: str) -> None:
    with transaction.atomic():
        insert(note)
        with contextlib.suppress(DatabaseError), transaction.atomic():
            break_a_rule()


def commit_and_swallow_an_error(note: str) -> None:
    insert(note)
    with contextlib.suppress(DatabaseError):
        ask_for_nothing()


def commit_in_an_inner_unit(note: str) -> None:
    look()
    with fresh_connections:
        commit_by_atomic(note)
    look()


def commit_after_a_release(note: str) -> None:
    look()
    release_connections()
    insert(note)


def fail_in_atomic(note: str) -> None:
    with transaction.atomic():
        insert(note)
        raise Mistake


def fail_in_an_inner_unit(note: str) -> None:
    with transaction.atomic(), fresh_connections:
        insert(note)
        raise Mistake


def fail_by_the_database(note: str) -> None:
    with transaction.atomic():
        insert(note)
        ask_for_nothing()


def fail_by_a_rule(note: str) -> None:
    with transaction.atomic():
        insert(note)
        break_a_rule()


def leave_begin_open(note: str) -> None:
    execute("BEGIN")
    insert(note)


def leave_autocommit_off(note: str) -> None:
    transaction.set_autocommit(False)
    insert(note)


def leave_atomic_open(note: str) -> None:
    abandoned: Iterator[None] = rows_in_atomic(note)
    next(abandoned)
    kept.append(abandoned)  # as an iterator that is still referenced


def rows_in_atomic(note: str) -> Iterator[None]:
    with transaction.atomic():
        insert(note)
        yield


kept: list[Iterator[None]] = []


@dataclass(frozen=True)
class Kind:
    """A kind of work."""

    work: Callable[[str], None]
    commits: bool = False
    """Whether its row must be there when it ends without an exception."""
    is_left_to_django: bool = False
    """Whether Django rolls its row back. If a signal handler raises in the middle of that, Django
    turns autocommit on before it has rolled back, and MySQL and SQLite then commit."""


COMMITTING = [
    commit_by_autocommit,
    commit_by_atomic,
    commit_though_a_savepoint_fails,
    commit_and_swallow_an_error,
    commit_in_an_inner_unit,
    commit_after_a_release,
]
FAILING = [fail_in_atomic, fail_in_an_inner_unit, fail_by_the_database, fail_by_a_rule]
LEAVING = [look, leave_begin_open, leave_autocommit_off, leave_atomic_open]
KINDS = [
    *(Kind(work, commits=True) for work in COMMITTING),
    *(Kind(work, is_left_to_django=True) for work in FAILING),
    *(Kind(work) for work in LEAVING),
]
