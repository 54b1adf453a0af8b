"""daemonkit's own tables on the servers of the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import connections
from django.db.models import Model

from daemonkit.models import Claim, Run


@contextlib.contextmanager
def ledger_tables(alias: str) -> Iterator[None]:
    """Provide the empty tables that exclusive jobs need: the ledger, and claims."""
    with empty_table(Run, alias), empty_table(Claim, alias):
        yield


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
