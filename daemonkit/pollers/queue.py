"""The queue of a poller: the rows of the user's table that match its queryset.

Rows are found in two steps. A plain SELECT finds candidates; then exactly these keys are locked, or
leased. MariaDB locks every row that it sorts for an ORDER BY with a LIMIT, so that a second worker
would get none: the locking SELECT has neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connections, router
from django.db.models import Exists, Model, QuerySet

from daemonkit.pollers.attempts import Attempts
from daemonkit.pollers.keys import has_number, key_in, key_text


class Candidate(NamedTuple):
    """The key of a row that may be taken, and its text in daemonkit's table."""

    pk: Any
    text: str


def alias_of(queryset: QuerySet[Any]) -> str:
    """The database that a poller reads, locks and writes: the one for writing, never a replica."""
    chosen, hints = vars(queryset)["_db"], vars(queryset)["_hints"]
    return str(chosen or router.db_for_write(queryset.model, **hints))


class Queue:
    """The rows that wait in one tick. ``queryset`` is the one for that tick; ``attempts`` are the
    rows of daemonkit's table on the same database."""

    def __init__(self, queryset: QuerySet[Any], attempts: Attempts) -> None:
        self.alias = attempts.alias
        self.model: type[Model] = queryset.model
        self._rows = queryset.using(self.alias)
        self._attempts = attempts

    def candidates(self, count: int, *, blocked: bool = False) -> list[Candidate]:
        """The keys of the next ``count`` rows that may be taken. With ``blocked`` also those that
        must wait or are leased, which is faster."""
        rows = self._plain() if blocked else self._may_be_taken()
        if has_number(self.model):
            numbers = rows.values_list("pk", flat=True)[:count]
            return [Candidate(pk, str(pk)) for pk in numbers]
        found = rows.annotate(daemonkit_key=key_text(self.model))
        keys = found.values_list("pk", "daemonkit_key")[:count]
        return [Candidate(pk, text) for pk, text in keys]

    def _may_be_taken(self) -> QuerySet[Any]:
        blocked = self._attempts.blocking(key_text(self.model, outer=True))
        return self._plain().filter(~Exists(blocked))

    def _plain(self) -> QuerySet[Any]:
        return self._rows.select_related(None).prefetch_related(None)

    def lock(self, candidates: Sequence[Candidate]) -> list[Any]:
        """Lock the rows that still match and that no other session has locked, and return them in
        the order of the candidates."""
        keys = [each.pk for each in candidates]
        features = connections[self.alias].features
        of = ("self",) if features.has_select_for_update_of else ()
        rows = self._rows.filter(key_in(self.model, keys)).order_by()
        if not of and self._rows.query.select_related:
            # FOR UPDATE would lock the rows of the joined tables, too.
            alone = rows.select_related(None).prefetch_related(None)
            locked = alone.select_for_update(skip_locked=True).values_list("pk", flat=True)
            rows = self._rows.filter(key_in(self.model, list(locked))).order_by()
        else:
            rows = rows.select_for_update(skip_locked=True, of=of)
        return _in_order(rows, keys)

    def fetch(self, candidates: Sequence[Candidate]) -> list[Any]:
        """The rows that still match, in the order of the candidates."""
        keys = [each.pk for each in candidates]
        return _in_order(self._rows.filter(key_in(self.model, keys)).order_by(), keys)

    def still_waiting(self, keys: Sequence[Any]) -> set[Any]:
        """Those keys whose rows still match the queryset."""
        left = self._plain().filter(key_in(self.model, keys)).order_by()
        return set(left.values_list("pk", flat=True))

    def finish(self, keys: Sequence[Any], done: str | Mapping[str, Any] | None) -> None:
        """Make the rows with these keys leave the queue as the class says, in one statement."""
        if done is None or not keys:
            return
        finished = self.model._base_manager.using(self.alias).filter(key_in(self.model, keys))
        if isinstance(done, str):
            finished.delete()
        else:
            finished.update(**done)

    @property
    def rows(self) -> QuerySet[Any]:
        """All rows of the queue, also those that must wait."""
        return self._rows

    def count(self, limit: int) -> int:
        """How many rows may be taken now; counted no further than ``limit``."""
        found: int = self._may_be_taken().order_by()[:limit].count()
        return found


def _in_order(rows: QuerySet[Any], keys: Sequence[Any]) -> list[Any]:
    place = {key: number for number, key in enumerate(keys)}
    return sorted(rows, key=lambda row: place[row.pk])
