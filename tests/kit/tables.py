"""daemonkit's own tables on the servers of the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connections
from django.db.models import Model

from daemonkit.connections.holding import close_all
from daemonkit.models import Claim, Run
from lab.servers import Server
from tests.kit.aliases import MakeAlias


@contextlib.contextmanager
def ledger_tables(alias: str) -> Iterator[None]:
    """Provide the empty tables that exclusive jobs need: the ledger, and claims."""
    with empty_table(Run, alias), empty_table(Claim, alias):
        yield


@pytest.fixture
def database(server: Server, alias: MakeAlias, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The alias of daemonkit's database, with the tables of the ledger, which are empty."""
    name = alias(server)
    monkeypatch.setattr(settings, "DAEMONKIT", {"database": name}, raising=False)
    with ledger_tables(name):
        yield name
    close_all()


@contextlib.contextmanager
def empty_table(model: type[Model], alias: str) -> Iterator[None]:
    """Provide an empty table while the block runs. A table that a migration made is kept, empty."""
    connection = connections[alias]
    made = model._meta.db_table not in connection.introspection.table_names()
    if made:
        with connection.schema_editor() as editor:
            editor.create_model(model)
    model._base_manager.using(alias).all().delete()
    connection.close()
    try:
        yield
    finally:
        if made:
            with connection.schema_editor() as editor:
                editor.delete_model(model)
        else:
            model._base_manager.using(alias).all().delete()
        connection.close()
