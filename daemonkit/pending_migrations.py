"""Which migrations a daemon must wait for: those of its own app, and of daemonkit if it is used.

A look compares the names of the migration files with the rows of ``django_migrations``, without
importing a migration. Only if there is a difference, Django's loader decides: it knows squashed
migrations.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Iterator

from django.apps import AppConfig, apps
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, Error, connections, router

from daemonkit import conf
from daemonkit.errors import classify

OURS = "daemonkit"


def pending_migrations(module: str, *, uses_our_tables: bool) -> str:
    """The migrations that are not applied: "shop.0004_price and 2 more". Asks the databases.

    ``module`` is the daemon's. Databases in which its app is not migrated, and databases without
    the table ``django_migrations``, are left out. Raises the error of a default database that is
    away; other databases that are away are left out, too: the daemon may not need them.
    """
    files: dict[str, dict[str, set[str]]] = {}  # by database and app
    for label, alias in _places(module, uses_our_tables=uses_our_tables):
        if found := _names_of_files(label):
            files.setdefault(alias, {})[label] = found
    pending: dict[str, None] = {}  # in order, each once
    for alias, apps_there in files.items():
        applied = _names_of_applied(alias, list(apps_there))
        for label, found in apps_there.items():
            if applied is not None and not {(label, name) for name in found} <= applied:
                pending.update(dict.fromkeys(_planned(label, alias)))
    names = list(pending)
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"


def _places(module: str, *, uses_our_tables: bool) -> Iterator[tuple[str, str]]:
    """The apps, by label, and the databases in which each is migrated."""
    app = apps.get_containing_app_config(module)
    if app is not None and app.label != OURS:
        for alias in connections:
            has_database = connections.settings[alias]["ENGINE"] != conf.NO_DATABASE
            if has_database and router.allow_migrate(alias, app.label):
                yield app.label, alias
    if uses_our_tables and router.allow_migrate(conf.database(), OURS):
        yield OURS, conf.database()


def _names_of_files(label: str) -> set[str]:
    """The names of an app's migrations, found as Django's ``MigrationLoader`` finds them."""
    config: AppConfig = apps.get_app_config(label)
    package = settings.MIGRATION_MODULES.get(label, f"{config.name}.migrations")
    try:
        spec = importlib.util.find_spec(package) if package else None
    except ModuleNotFoundError:
        return set()
    if spec is None or spec.origin is None:  # Django ignores a folder without __init__.py
        return set()
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return {each.name for each in found if not each.ispkg and each.name[0] not in "_~"}


def _names_of_applied(alias: str, labels: list[str]) -> set[tuple[str, str]] | None:
    """The app and name of each migration of these apps that a database has. None if it cannot
    say."""
    marks = ", ".join(["%s"] * len(labels))
    query = f"SELECT app, name FROM django_migrations WHERE app IN ({marks})"
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(query, labels)
            return {(str(label), str(name)) for label, name in cursor.fetchall()}
    except Error as error:
        if classify(error) is None or alias != DEFAULT_DB_ALIAS:
            return None  # it has no such table, or does not let us read it
        raise


def _planned(label: str, alias: str) -> list[str]:
    """What ``manage.py migrate`` would apply of an app."""
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connections[alias])
    leaves = [node for node in executor.loader.graph.leaf_nodes() if node[0] == label]
    plan = executor.migration_plan(leaves)
    return [f"{label}.{each.name}" for each, _ in plan if each.app_label == label]
