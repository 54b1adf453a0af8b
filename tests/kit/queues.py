"""Databases with the tables of the pollers' tests, and pollers to work them off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from django.db import connections
from django.db.models import QuerySet

from daemonkit import Backoff, ModelPoller
from daemonkit.models import PollerRow
from daemonkit.testing import FakeClock, run_ticks
from tests.kit.aliases import MakeAlias
from tests.kit.tables import empty_table
from tests.queues.models import Effect, Express, Letter, Line, Parcel, Tagged

MODELS = (Letter, Effect, Express, Parcel, Line, Tagged, PollerRow)


@contextlib.contextmanager
def queue_tables(alias: str) -> Iterator[None]:
    """Provide the empty tables while the block runs."""
    with contextlib.ExitStack() as stack:
        for model in MODELS:
            stack.enter_context(empty_table(model, alias))
        yield


@pytest.fixture(params=["mariadb", "postgres", "sqlite"])
def queues(
    request: pytest.FixtureRequest, alias: MakeAlias, settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:  # fmt: skip
    """An alias with the tables, on each kind of database."""
    server = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    name = alias(server)
    monkeypatch.setitem(settings.DATABASES, name, connections.settings[name])
    with queue_tables(name):
        yield name


def poller(queryset: QuerySet[Any], process: Any = None, **attributes: Any) -> ModelPoller:
    """The poller ``post_letters`` with this queryset and ``process(row)``."""
    members: dict[str, Any] = {
        "__module__": "shop.post_letters",
        "queryset": queryset,
        "backoff": Backoff(first=60),
        **attributes,
    }
    if process is not None:
        members["process"] = lambda self, row: process(row)
    return type("Command", (ModelPoller,), members)()  # type: ignore[no-any-return]


def tick(command: ModelPoller, count: int = 1, **options: Any) -> list[str]:
    """Run ticks, and return what they came to: "2 rows, 1 failed"."""
    iterations = run_ticks(command, count, clock=FakeClock(), **options)
    return [str(each.result) for each in iterations]


def rows(alias: str) -> dict[str, tuple[int, bool]]:
    """The attempts of each key in daemonkit's table, and whether it is dead."""
    found = PollerRow.objects.using(alias).values_list("key", "attempts", "dead")
    return {key: (attempts, dead) for key, attempts, dead in found}


def let_pauses_end(alias: str, **fields: Any) -> None:
    """Let the pauses after failures, or leases, end now."""
    long_ago = "2020-01-01T00:00:00Z"
    PollerRow.objects.using(alias).filter(dead=False).update(not_before=long_ago, **fields)


SENT: Mapping[str, int] = {"sent": 1}
