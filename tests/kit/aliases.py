"""Database aliases of the test's own process, each made for one test."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from pytest_django.plugin import DjangoDbBlocker

from daemonkit.connections.holding import kept_between_units
from lab.servers import MariaDB, Server
from lab.servers.base import is_installed

MakeAlias: TypeAlias = Callable[..., str]
Setup: TypeAlias = Callable[..., tuple[Server, str]]


@pytest.fixture
def alias(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[MakeAlias]:
    """Return ``alias(server, name="probe", **settings)``: a new alias of this process.

    ``server`` None stands for a SQLite file. Settings are those of DATABASES (CONN_MAX_AGE,
    OPTIONS...), ``port`` (a proxy's) or ``socket``. Queries are allowed without ``django_db``.
    """
    made: list[str] = []

    def make(server: Server | None, name: str = "probe", **settings: Any) -> str:
        if isinstance(server, MariaDB) and not is_installed("MySQLdb"):
            pytest.skip("mysqlclient, Django's driver for MariaDB, is not installed.")
        entry = server.settings(**settings) if server else sqlite_settings(tmp_path, name, settings)
        connections.settings[name] = with_defaults(entry)
        made.append(name)
        return name

    with django_db_blocker.unblock():
        try:
            yield make
        finally:
            for name in made:
                forget(name)


@pytest.fixture(params=["mariadb", "postgres", "postgres pool"])
def setup(request: pytest.FixtureRequest, alias: MakeAlias) -> Setup:
    """Return ``setup(CONN_MAX_AGE=...)``: a server and an alias on it, for each driver. With a pool
    CONN_MAX_AGE is always 0."""
    kind, _, pool = request.param.partition(" ")
    server: Server = request.getfixturevalue(kind)

    def make(**settings: object) -> tuple[Server, str]:
        if pool:
            settings.update(CONN_MAX_AGE=0, OPTIONS={"pool": {"min_size": 1, "max_size": 2}})
        return server, alias(server, **settings)

    return make


@pytest.fixture(params=[False, True], ids=["units", "loop"])
def between(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the test with units of work outside of a loop, and in a loop."""
    with kept_between_units() if request.param else contextlib.nullcontext():
        yield


def sqlite_settings(folder: Path, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    path = folder / f"{name}.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, note TEXT)")
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), **settings}


def with_defaults(entry: dict[str, Any]) -> dict[str, Any]:
    """Let Django add the defaults that it adds at start-up."""
    filled = connections.configure_settings({DEFAULT_DB_ALIAS: entry})
    return dict(filled[DEFAULT_DB_ALIAS])


def forget(name: str) -> None:
    """Close an alias in this thread, and its pool, whatever state the test left it in."""
    wrapper = connections[name]
    with contextlib.suppress(Exception):
        wrapper.close()
    raw, wrapper.connection = wrapper.connection, None
    if raw is not None:
        with contextlib.suppress(Exception):
            raw.close()
    if close_pool := getattr(wrapper, "close_pool", None):
        close_pool()
    del connections[name]
    connections.settings.pop(name, None)
