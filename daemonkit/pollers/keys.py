"""Primary keys as text: a key of any type in one column of daemonkit's table."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import (
    CharField,
    F,
    Field,
    Func,
    IntegerField,
    Model,
    OuterRef,
    Q,
    Value,
)
from django.db.models.functions import Concat
from django.db.models.lookups import Exact, In

LONGEST_KEY = 255
"""Characters of a key's text."""

SEPARATOR = "\x1f"
"""Stands between the parts of a composite key. People see a comma."""


class AsText(Func):
    """An expression as text, in a collation that tells all texts apart."""

    arity = 1
    output_field = CharField(max_length=LONGEST_KEY)
    template = f"CAST(%(expressions)s AS varchar({LONGEST_KEY}))"

    def as_mysql(self, compiler: Any, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        template = "CONVERT(%(expressions)s USING utf8mb4) COLLATE utf8mb4_bin"
        return self.as_sql(compiler, connection, template=template, **extra)


def key_text(model: type[Model], *, outer: bool = False) -> Any:
    """The expression for the text of a model's key; with ``outer``, for a subquery on another
    table."""
    reference = OuterRef if outer else F
    fields = parts_of_key(model)
    if len(fields) == 1:
        return AsText(reference("pk"))
    parts: list[Any] = []
    for field in fields:
        parts += [Value(SEPARATOR), AsText(reference(field.attname))]
    return Concat(*parts[1:], output_field=CharField(max_length=LONGEST_KEY))


def has_number(model: type[Model]) -> bool:
    """Whether a model's key is a whole number, whose text Python knows."""
    return isinstance(model._meta.pk, IntegerField)  # so are BigAutoField and its kind


def key_in(model: type[Model], keys: Collection[Any]) -> Any:
    """The condition that a row has one of these keys.

    For PostgreSQL a list of numbers is one parameter: psycopg takes long to parse hundreds.
    """
    if has_number(model) and keys:
        return _NumberIn(F("pk"), list(keys))
    return Q(pk__in=keys)


class SameKey(Exact):
    """That a key in daemonkit's table is this one.

    With a plain ``=`` MariaDB would read all rows of a poller first, to put them into a temporary
    table.
    """

    def as_mysql(self, compiler: Any, connection: BaseDatabaseWrapper) -> Any:
        left, left_parameters = self.process_lhs(compiler, connection)
        right, right_parameters = self.process_rhs(compiler, connection)
        return f"{left} <=> {right}", (*left_parameters, *right_parameters)


class _NumberIn(In):
    def as_postgresql(self, compiler: Any, connection: BaseDatabaseWrapper) -> Any:
        sql, parameters = self.process_lhs(compiler, connection)
        return f"{sql} = ANY(%s)", (*parameters, list(self.rhs))


def parts_of_key(model: type[Model]) -> list[Field[Any, Any]]:
    """The fields of a model's key: more than one if it is composite."""
    fields: list[Field[Any, Any]] = list(getattr(model._meta, "pk_fields", [model._meta.pk]))
    return fields


def key_of(model: type[Model], text: str) -> Any:
    """The value of a key, from its text."""
    parts = [
        field.to_python(part)
        for field, part in zip(parts_of_key(model), text.split(SEPARATOR), strict=True)
    ]
    return parts[0] if len(parts) == 1 else tuple(parts)


def shown(text: str) -> str:
    """A key's text for people, who may type it, too."""
    return text.replace(SEPARATOR, ",")
