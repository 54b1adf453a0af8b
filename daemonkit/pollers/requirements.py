"""What a poller needs of its class, its queryset and its database.

Each refusal is one sentence that says how to correct it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.core.management.base import CommandError
from django.db import connections
from django.db.models import CharField, Model, QuerySet, TextField

from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.exits import Exit
from daemonkit.models import PollerRow
from daemonkit.pollers.keys import LONGEST_KEY, parts_of_key
from daemonkit.pollers.queue import alias_of
from daemonkit.pollers.work import Poller as Work
from daemonkit.settings.parsing import at_least_one, seconds, usage

_SETTINGS = ("queryset", "batch_size", "done", "claim", "claim_seconds", "max_attempts")

SHORTEST_CLAIM = 1.0
"""Seconds. A shorter lease would be lost in any short pause of the server or the machine."""


class Poller(Work, Protocol):
    """What the checks look at."""

    queryset: QuerySet[Any] | None
    claim: str
    threads: int

    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def takes_rows(self) -> bool: ...
    def get_queryset(self) -> QuerySet[Any]: ...
    def tick(self) -> Any: ...


def refuse_incomplete_class(poller: Poller, base: type[Any]) -> None:
    """Raise ``CommandError`` (exit code 2) for a class that is not a complete poller. ``base`` is
    the class of all pollers."""
    name, kind = poller.name, type(poller)
    if not apps.is_installed("daemonkit"):
        raise usage(f"{name} is a poller: put 'daemonkit' into INSTALLED_APPS")
    _refuse_misspelt(poller, base)
    _refuse_methods(poller, base)
    _refuse_claim(poller)
    at_least_one("batch_size", poller.batch_size)
    at_least_one("max_attempts", poller.max_attempts)
    if kind.get_queryset is not base.get_queryset:
        return  # it may need the options, and is checked when the life begins
    if not isinstance(poller.queryset, QuerySet):
        raise usage(
            f"{name} has no queryset: write queryset = Email.objects.filter(sent_at=None), "
            f"or get_queryset()"
        )
    refuse_queryset(poller, poller.queryset)


def _refuse_misspelt(poller: Poller, base: type[Any]) -> None:
    """Raise ``CommandError`` for a class attribute whose name is almost that of a setting."""
    mro = type(poller).__mro__
    for kind in mro[: mro.index(base)]:
        for name, value in list(vars(kind).items()):
            if name in _SETTINGS or name.startswith("_") or inspect.isroutine(value):
                continue
            if near := difflib.get_close_matches(name, _SETTINGS, 1, 0.87):
                raise usage(
                    f"{poller.name} says {name} = {value!r}, which is no setting: write {near[0]}, "
                    f"or give an attribute of your own another name"
                )


def _refuse_methods(poller: Poller, base: type[Any]) -> None:
    name = poller.name
    if type(poller).tick is not base.tick:
        raise usage(f"{name} is a poller and has a tick(): write process(row) instead")
    if poller.takes_rows and poller.takes_batches:
        raise usage(f"{name} has process() and process_batch(): write one or the other")
    if not poller.takes_rows and not poller.takes_batches:
        raise usage(f"{name} has no process(row); write one: it is the work on one row")
    method, called = (
        (poller.process_batch, f"{name}.process_batch()")
        if poller.takes_batches
        else (poller.process, f"{name}.process()")
    )
    if inspect.iscoroutinefunction(method):
        raise usage(f"{called} is async, and runs inside a transaction or on a thread: write def")
    if inspect.isgeneratorfunction(method):
        raise usage(f"{called} is a generator, which returns before it works: no yield")
    try:
        inspect.signature(method).bind(None)
    except TypeError as error:
        what = "the rows" if poller.takes_batches else "the row"
        raise usage(f"{called} is called with {what} besides self: {error}") from None


def _refuse_claim(poller: Poller) -> None:
    name, claim = poller.name, poller.claim
    if claim not in ("transaction", "lease"):
        raise usage(f"{name} says claim = {claim!r}: write claim = 'transaction' or 'lease'")
    threads = at_least_one("threads", poller.options.get("threads") or poller.threads)
    if threads > 1 and claim == "transaction":
        raise usage(
            f"{name} has {threads} threads, and one transaction is for one thread: write "
            f"claim = 'lease', or run several workers"
        )
    if threads > 1 and poller.takes_batches:
        raise usage(f"{name} has {threads} threads and process_batch(): write process(row)")
    if seconds("claim_seconds", poller.claim_seconds) < SHORTEST_CLAIM:
        raise usage(f"claim_seconds of {poller.claim_seconds:g} s is too short: at least "
                     f"{SHORTEST_CLAIM:g} s")  # fmt: skip


def refuse_queryset(poller: Poller, queryset: QuerySet[Any]) -> None:
    """Raise ``CommandError`` (exit code 2) for a queryset whose rows cannot be locked."""
    name, query = poller.name, queryset.query

    def refuse(what: str, mend: str) -> NoReturn:
        raise usage(f"{name}: its queryset {what}: {mend}")

    if query.is_sliced:
        refuse("is sliced", "say batch_size instead")
    if query.distinct:
        refuse("is distinct(), which FOR UPDATE cannot lock", "write the condition as Exists(...)")
    if query.combinator:
        refuse(f"is a {query.combinator}, which FOR UPDATE cannot lock", "write Q(...) | Q(...)")
    if query.group_by is not None:
        refuse("has an aggregate, which FOR UPDATE cannot lock", "write a Subquery(...)")
    if getattr(queryset, "_fields", None) is not None:
        refuse("gives values()", "leave them out: process() gets instances of the model")
    if not queryset.ordered:
        refuse("has no order", "write .order_by('pk'), or ordering in the model's Meta")
    if "?" in query.order_by:
        refuse("has a random order", "write .order_by('pk')")
    _refuse_key(name, queryset.model)
    _refuse_done(name, queryset.model, poller.done)


def _refuse_key(name: str, model: type[Model]) -> None:
    for part in parts_of_key(model):
        field: Any = part
        while field.remote_field:
            field = field.target_field
        length = getattr(field, "max_length", None)
        is_text = isinstance(field, CharField | TextField)
        if is_text and (length is None or length > LONGEST_KEY):
            raise usage(f"{name}: the primary key of {model.__name__} may be longer than "
                         f"{LONGEST_KEY} characters: give it a shorter one")  # fmt: skip


def _refuse_done(name: str, model: type[Model], done: Any) -> None:
    if done is None or done == "delete":
        return
    if not isinstance(done, Mapping) or not done:
        raise usage(f"{name} says done = {done!r}: write done = 'delete', or the values of its "
                     f"fields, such as done = {{'sent_at': Now()}}")  # fmt: skip
    for field in done:
        try:
            model._meta.get_field(field)
        except FieldDoesNotExist:
            raise usage(f"{name} says done = {{{field!r}: ...}}, and {model.__name__} has no such "
                         f"field") from None  # fmt: skip


def refuse_workers_on_sqlite(poller: Poller) -> None:
    """Raise ``CommandError`` (exit code 2) for several workers on SQLite."""
    alias = alias_of(poller.get_queryset())
    if connections[alias].vendor == "sqlite":
        raise usage(f"{poller.name}: SQLite has one writer at a time: run one worker, or use "
                     f"PostgreSQL, MySQL or MariaDB")  # fmt: skip


def require_database(poller: Poller) -> None:
    """Raise ``CommandError`` if the queryset or the database cannot serve a poller (exit code 2),
    or daemonkit's table is missing (78). Raises the errors of the database."""
    queryset = poller.get_queryset()
    refuse_queryset(poller, queryset)
    alias = alias_of(queryset)
    connection = connections[alias]
    if connection.vendor == "sqlite":
        pass
    elif not connection.features.has_select_for_update_skip_locked:
        raise usage(f"{poller.name} needs SKIP LOCKED: MariaDB 10.6, MySQL 8, PostgreSQL or later, "
                     f"not {connection.display_name}")  # fmt: skip
    elif not connection.features.has_select_for_update_of:
        _refuse_joins(poller.name, queryset, connection.display_name)
    if is_table_missing(alias, PollerRow._meta.db_table):
        raise CommandError(
            f"{poller.name} needs the table {PollerRow._meta.db_table}: {how_to_migrate(alias)}",
            returncode=Exit.MISCONFIGURED,
        )


def _refuse_joins(name: str, queryset: QuerySet[Any], database: str) -> None:
    """Where there is no FOR UPDATE OF, a join's rows would be locked, too."""
    model = queryset.model
    own = {model._meta.db_table, *(each._meta.db_table for each in model._meta.all_parents)}
    query = queryset.query
    used = (each for key, each in query.alias_map.items() if query.alias_refcount[key])
    if joined := sorted({str(each.table_name) for each in used} - own):
        raise usage(
            f"{name}: its queryset joins {', '.join(joined)}, whose rows {database} would lock, "
            f"too: write the condition as Exists(...) or as pk__in=..."
        )
