"""The rows of daemonkit's table about one queue: failures, dead letters and leases.

A row of the user's table has one only if it has failed or is leased. ``not_before`` is the end of
its pause or of its lease, by the database's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import (
    BooleanField,
    ExpressionWrapper,
    F,
    Model,
    Q,
    QuerySet,
)

from daemonkit import conf
from daemonkit.errors import one_line
from daemonkit.models import PollerRow
from daemonkit.pollers.keys import SEPARATOR, SameKey, key_of
from daemonkit.pollers.moments import FromNow

PRUNE_SIZE = 1000
"""The largest number of rows that one pruning looks at."""

_KEY = ["poller", "key"]


class Known(NamedTuple):
    """What the table says about one row of the queue."""

    attempts: int
    is_blocked: bool
    """Whether it waits after a failure, is dead, or is leased."""


class Attempts:
    """The rows about the queue ``poller`` in the database ``alias``."""

    def __init__(self, poller: str, alias: str) -> None:
        self.poller, self.alias = poller, alias
        self.seem_empty = False
        """Whether there was none when ``known()`` looked last. Another process may have noted some
        since."""
        self._pruned_to = ""

    @property
    def rows(self) -> QuerySet[PollerRow]:
        return PollerRow.objects.using(self.alias).filter(poller=self.poller)

    def blocking(self, key: Any) -> QuerySet[PollerRow]:
        """The row that keeps the one with this key from being taken."""
        return self.rows.filter(_BLOCKED, SameKey(F("key"), key))

    def known(self, texts: Collection[str]) -> dict[str, Known]:
        """What is known of these keys, as committed now."""
        if len(texts) > 1:
            self.seem_empty = self._are_none()
            if self.seem_empty:
                return {}  # in most queues nothing has failed
        blocked = ExpressionWrapper(_BLOCKED, output_field=BooleanField())
        found = self.rows.filter(key__in=texts).annotate(is_blocked=blocked)
        values = found.values_list("key", "attempts", "is_blocked")
        return {key: Known(attempts, bool(is_blocked)) for key, attempts, is_blocked in values}

    def _are_none(self) -> bool:
        """Whether there is no row at all. Asked in each batch, so it is written by hand."""
        connection = connections[self.alias]
        table = connection.ops.quote_name(PollerRow._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT 1 FROM {table} WHERE poller = %s LIMIT 1", [self.poller])
            return cursor.fetchone() is None

    def note_failure(self, text: str, attempts: int, error: str, pause: float | None) -> None:
        """Note a failed attempt. The row waits for ``pause`` seconds; None: it is dead."""
        row = PollerRow(
            poller=self.poller,
            key=text,
            attempts=attempts,
            not_before=FromNow(pause or 0.0),
            error=error,
            dead=pause is None,
        )
        features = connections[self.alias].features
        PollerRow.objects.using(self.alias).bulk_create(
            [row],
            update_conflicts=True,
            update_fields=["owner", "attempts", "not_before", "error", "dead"],
            unique_fields=_KEY if features.supports_update_conflicts_with_target else None,
        )

    def forget(self, texts: Collection[str]) -> None:
        """Delete the rows of these keys."""
        if texts:
            self.rows.filter(key__in=texts).delete()

    # Leases

    def claim(self, texts: Sequence[str], owner: str, seconds: float) -> dict[str, int]:
        """Lease the rows with these keys. Returns the attempts of those that are ours now.

        The unique key decides. A row that is there is swapped only if nothing blocks it, which its
        row lock makes certain.
        """
        until = FromNow(seconds)
        new = [
            PollerRow(poller=self.poller, key=text, owner=owner, epoch=1, not_before=until)
            for text in sorted(texts)
        ]
        PollerRow.objects.using(self.alias).bulk_create(new, ignore_conflicts=True)
        ours = self._held(texts, owner)
        rest = [text for text in texts if text not in ours]
        free = self.rows.filter(key__in=rest).exclude(_BLOCKED)
        if rest and free.update(owner=owner, epoch=F("epoch") + 1, not_before=until):
            ours |= self._held(rest, owner)
        return ours

    def _held(self, texts: Collection[str], owner: str) -> dict[str, int]:
        held = self.rows.filter(key__in=texts, owner=owner)
        return dict(held.values_list("key", "attempts"))

    def renew(self, texts: Collection[str], owner: str, seconds: float) -> int:
        """Renew leases. Returns how many are still held."""
        held = self.rows.filter(key__in=texts, owner=owner, not_before__gt=FromNow())
        return held.update(not_before=FromNow(seconds))

    def release(self, texts: Collection[str], owner: str) -> int:
        """Delete the rows of leases that ended well. Returns how many were still held."""
        if not texts:
            return 0
        return self.rows.filter(key__in=texts, owner=owner).delete()[0]

    def end_in_failure(
        self, text: str, owner: str, attempts: int, error: str, pause: float | None
    ) -> bool:
        """Note a failed attempt of a leased row, which ends the lease. False if it was not held."""
        return bool(
            self.rows.filter(key=text, owner=owner).update(
                owner="",
                attempts=attempts,
                not_before=FromNow(pause or 0.0),
                error=error,
                dead=pause is None,
            )
        )

    def give_back(self, texts: Collection[str], owner: str) -> None:
        """End the leases of rows that were not worked on."""
        held = self.rows.filter(key__in=texts, owner=owner)
        if texts and held.update(owner="", not_before=FromNow()):
            self.rows.filter(key__in=texts, owner="", attempts=0, dead=False).delete()

    def waiting(self) -> QuerySet[PollerRow]:
        """The rows that wait after a failure, and those that are leased."""
        return self.rows.filter(dead=False, not_before__gt=FromNow())

    # Dead letters

    def dead(self) -> QuerySet[PollerRow]:
        """The dead letters, the oldest first."""
        return self.rows.filter(dead=True).order_by("not_before", "pk")

    def named(self, shown: str) -> QuerySet[PollerRow]:
        """The dead letters with a key as people see it, or "all"."""
        if shown == "all":
            return self.dead()
        return self.dead().filter(key__in=[shown, shown.replace(",", SEPARATOR)])

    def revive(self, shown: str) -> int:
        """Let dead letters be tried again, as if they had never failed. Returns how many."""
        return self.named(shown).order_by().update(dead=False, attempts=0, not_before=FromNow())

    def prune(self, model: type[Model], waiting: QuerySet[Any]) -> int:
        """Delete rows that nobody needs: of rows that were deleted, and those of failures whose row
        has left the queue. Looks at ``PRUNE_SIZE`` rows, and goes on there the next time. Returns
        how many were deleted."""
        over = self.rows.filter(not_before__lt=FromNow(-60.0), key__gt=self._pruned_to)
        seen = list(over.order_by("key").values_list("key", "dead")[:PRUNE_SIZE])
        self._pruned_to = seen[-1][0] if len(seen) == PRUNE_SIZE else ""
        there = model._base_manager.using(self.alias).all()
        unneeded = _without(model, there, [text for text, is_dead in seen if is_dead])
        unneeded += _without(model, waiting, [text for text, is_dead in seen if not is_dead])
        if not unneeded:
            return 0
        old = self.rows.filter(key__in=unneeded, not_before__lt=FromNow(-60.0))
        return old.delete()[0]


def stored(error: BaseException) -> str:
    """An error as the table keeps it: DAEMONKIT["store_errors"] says how much of it."""
    kept = {"class": type(error).__name__, "none": ""}
    return kept.get(conf.store_errors(), one_line(error))


def _without(model: type[Model], rows: QuerySet[Any], texts: Iterable[str]) -> list[str]:
    """Those of the keys that are not among the rows."""
    keys = {text: key_of(model, text) for text in texts}
    if not keys:
        return []
    plain = rows.select_related(None).order_by().filter(pk__in=list(keys.values()))
    found = set(plain.values_list("pk", flat=True))
    return [text for text, key in keys.items() if key not in found]


_BLOCKED = Q(dead=True) | Q(not_before__gt=FromNow())
