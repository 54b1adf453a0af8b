"""The database of a daemon's trials: it is restored before each trial, and read after it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from django.apps import apps
from django.db import connections, models

from daemonkit.connections.session_thread import private_wrapper
from daemonkit.connections.wrappers import Wrapper

_SECONDS = 10.0
_OWN_TABLES = ("django_migrations", "daemonkit_run", "daemonkit_lease", "daemonkit_claim")

Row = tuple[Any, ...]


class Table(NamedTuple):
    """The rows of one table."""

    columns: tuple[str, ...]
    rows: list[Row]

    def without(self, columns: set[str]) -> Counter[Row]:
        """Count equal rows, ignoring some columns."""
        kept = [n for n, name in enumerate(self.columns) if name not in columns]
        return Counter(tuple(repr(row[n]) for n in kept) for row in self.rows)


Tables = dict[str, Table]


class ServerStage:
    """A database on a server. Tables that a trial has changed are restored."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        with self._connected() as wrapper:
            self._own = {name: _read(wrapper, name) for name in _names(wrapper)}

    def restore(self) -> None:
        with self._connected() as wrapper:
            changed = [
                (name, table)
                for name, table in self._own.items()
                if _read(wrapper, name).rows != table.rows
            ]
            if changed:
                with wrapper.constraint_checks_disabled(), _atomic(wrapper):
                    for name, table in changed:
                        _write(wrapper, name, table)

    def read(self) -> Tables:
        with self._connected() as wrapper:
            return {name: _read(wrapper, name) for name in self._own if name not in _OWN_TABLES}

    def enter(self) -> None:
        """Called in a child. There is nothing to do: the alias already means this database."""

    def close(self) -> None:
        self.restore()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Wrapper]:
        wrapper = private_wrapper(self._alias, _SECONDS, "daemonkit-testing")
        try:
            yield wrapper
        finally:
            wrapper.close()


class FileStage:
    """A SQLite database. Each trial gets a copy of the file, or of the database in memory."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._folder = Path(tempfile.mkdtemp(prefix="survival-"))
        self._master, self.path = self._folder / "master", self._folder / "trial"
        connections[alias].ensure_connection()
        with contextlib.closing(sqlite3.connect(self._master)) as master:
            raw: Any = connections[alias].connection
            raw.backup(master)

    def restore(self) -> None:
        for path in self._folder.glob("trial*"):  # and its journal
            path.unlink()
        shutil.copy(self._master, self.path)

    def read(self) -> Tables:
        wrapper = type(connections[self._alias])(self._settings(), self._alias)
        try:
            return {n: _read(wrapper, n) for n in _names(wrapper) if n not in _OWN_TABLES}
        finally:
            wrapper.close()

    def enter(self) -> None:
        """Called in a child. Make the alias mean this trial's copy."""
        connections.settings[self._alias] = self._settings()
        del connections[self._alias]

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = connections[self._alias].settings_dict
        return {**settings, "NAME": str(self.path)}


Stage = ServerStage | FileStage


def stage_of(alias: str) -> Stage:
    return FileStage(alias) if connections[alias].vendor == "sqlite" else ServerStage(alias)


@contextlib.contextmanager
def _atomic(wrapper: Wrapper) -> Iterator[None]:
    """``atomic()`` for a wrapper that is not in ``django.db.connections``."""
    wrapper.set_autocommit(False)
    try:
        yield
        wrapper.commit()
    finally:
        wrapper.set_autocommit(True)


def _names(wrapper: Wrapper) -> list[str]:
    with wrapper.cursor() as cursor:
        found = wrapper.introspection.get_table_list(cursor)
    return sorted(table.name for table in found if table.type in ("t", "p"))


def _read(wrapper: Wrapper, name: str) -> Table:
    with wrapper.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {wrapper.ops.quote_name(name)}")
        columns = tuple(column[0] for column in cursor.description)
        rows = [tuple(row) for row in cursor.fetchall()]
    return Table(columns, sorted(rows, key=repr))


def _write(wrapper: Wrapper, name: str, table: Table) -> None:
    quote = wrapper.ops.quote_name
    columns = ", ".join(map(quote, table.columns))
    places = ", ".join(["%s"] * len(table.columns))
    with wrapper.cursor() as cursor:
        cursor.execute(f"DELETE FROM {quote(name)}")
        cursor.executemany(f"INSERT INTO {quote(name)} ({columns}) VALUES ({places})", table.rows)


# Comparing


class Expectation:
    """The result of a daemon's work without trouble, recorded in two runs.

    Columns in which the two runs differ (times, generated numbers) are not compared.
    """

    def __init__(self, first: Tables, second: Tables) -> None:
        self._expected = first
        self._changing = {name: self._changing_columns(name, second) for name in first}

    def _changing_columns(self, name: str, second: Tables) -> set[str] | None:
        """The columns that are not compared; None for a table that is not compared at all."""
        one, other = self._expected[name], second[name]
        if len(one.rows) != len(other.rows):
            return None
        given = _automatic_keys().get(name, set())
        return given | {
            column
            for column in one.columns
            if one.without(set(one.columns) - {column})
            != other.without(set(one.columns) - {column})
        }

    def differences(self, found: Tables) -> list[str]:
        """Describe what differs from the result without trouble."""
        return [
            difference
            for name, table in self._expected.items()
            if (changing := self._changing[name]) is not None
            and (difference := _difference(name, table, found[name], changing))
        ]


def _difference(name: str, expected: Table, found: Table, changing: set[str]) -> str:
    if len(expected.rows) != len(found.rows):
        return f"{name} has {_rows(len(found.rows))} instead of {len(expected.rows)}"
    if count := (found.without(changing) - expected.without(changing)).total():
        return f"{name} has {_rows(count)} with other values"
    return ""


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _automatic_keys() -> dict[str, set[str]]:
    """The columns of each table that the database numbers automatically."""
    return {
        model._meta.db_table: {model._meta.pk.column}
        for model in apps.get_models()
        if isinstance(model._meta.pk, models.AutoField) and model._meta.pk.column
    }
