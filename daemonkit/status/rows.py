"""The rows of processes and of orders, as a process writes and reads them.

It uses the ORM on the alias ``DAEMONKIT["database"]``, and raises the errors of the database.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from django.db.models import Q

from daemonkit import conf
from daemonkit.models import Order, Process
from daemonkit.process.identity import Identity, parse_identity
from daemonkit.status.database_time import Now, SecondsSince

DEAD_SECONDS = 86400.0
"""Seconds after which the row of a silent process is deleted."""

PRUNE_SIZE = 500
"""The largest number of rows that one pruning deletes."""

HOUR = 3600.0
MAX_STARTS = 30
"""How many starts of the last hour a row remembers."""


class Verb(StrEnum):
    """What can be ordered."""

    PAUSE = "pause"
    RUN = "run"
    STOP = "stop"
    RELOAD = "reload"


class Given(NamedTuple):
    """An order, as its receiver reads it. ``age`` is how many seconds ago it was given; ``left``
    how many it still holds, None without an end."""

    id: int
    verb: str
    taken_by: str
    age: float
    left: float | None
    job: str
    host: str
    by: str
    why: str


class ProcessRow:
    """The row of this process, in the place of this daemon's ``worker``."""

    def __init__(self, identity: Identity, daemon: str, worker: int) -> None:
        self._key, self._identity = str(identity), identity
        self._daemon, self._worker = daemon, worker

    def write(self, report: Mapping[str, Any]) -> None:
        """Write the row: one UPDATE, and an INSERT if there was none."""
        rows, text = Process.objects.using(conf.database()), json.dumps(report)
        if not rows.filter(pk=self._key).update(touched=Now(), report=text):
            rows.create(pk=self._key, daemon=self._daemon, touched=Now(), report=text)

    def remove(self) -> None:
        Process.objects.using(conf.database()).filter(pk=self._key).delete()

    def succeed(self) -> list[float]:
        """Delete the rows of processes of this daemon that have ended on this host.

        Returns how many seconds ago those in the same place were started within the last hour."""
        rows = Process.objects.using(conf.database()).filter(daemon=self._daemon)
        gone, starts = [], list[float]()
        for key, text, age in rows.annotate(age=SecondsSince("touched")).values_list(
            "pk", "report", "age"
        ):
            if key != self._key and _is_gone(parse_identity(key), self._identity.host):
                gone.append(key)
                report = json.loads(text)
                if report.get("worker") == self._worker:
                    starts += [age + each for each in report.get("starts", ())]
        if gone:
            rows.filter(pk__in=sorted(gone)).delete()
        return sorted(each for each in starts if each < HOUR)[: MAX_STARTS - 1]


def _is_gone(process: Identity, host: str) -> bool:
    return process.host == host and (process.pid == os.getpid() or process.is_gone)


def prune() -> None:
    """Delete rows of processes that have long been silent, and orders that are over."""
    alias = conf.database()
    dead = Process.objects.using(alias).filter(touched__lt=Now(-DEAD_SECONDS))
    if keys := sorted(dead.values_list("pk", flat=True)[:PRUNE_SIZE]):
        Process.objects.using(alias).filter(pk__in=keys).delete()
    over = Order.objects.using(alias).filter(until__lt=Now())
    if ids := sorted(over.values_list("pk", flat=True)[:PRUNE_SIZE]):
        Order.objects.using(alias).filter(pk__in=ids).delete()


def orders_for(daemon: str) -> list[Given]:
    """The orders for a daemon that still hold, the oldest first. One SELECT."""
    rows = Order.objects.using(conf.database()).filter(daemon=daemon)
    rows = rows.filter(Q(until=None) | Q(until__gt=Now())).order_by("pk")
    times = rows.annotate(age=SecondsSince("given"), over=SecondsSince("until"))
    return [
        Given(pk, verb, taken_by, age, None if over is None else -over, **_words(details))
        for pk, verb, taken_by, age, over, details in times.values_list(
            "pk", "verb", "taken_by", "age", "over", "details"
        )
    ]


def _words(text: str) -> dict[str, str]:
    details = json.loads(text)
    return {name: str(details.get(name, "")) for name in ("job", "host", "by", "why")}


def take(order: int, key: str) -> bool:
    """Take an order to run for the process of this key. False if another process has it."""
    untaken = Order.objects.using(conf.database()).filter(pk=order, taken_by="")
    return bool(untaken.update(taken_by=key))
