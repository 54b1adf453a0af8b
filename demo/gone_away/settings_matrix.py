"""Sessions lost while idle, for each combination of settings.

Each combination has a thread, because close_old_connections() affects all aliases of its thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections

from demo.gone_away.observer import Observer
from demo.gone_away.remedies import DECORATORS, SETTINGS, Decorator
from demo.gone_away.units import count_failed, execute, session

KILLS, TIMEOUTS = 3, 3


def alias(max_age: int | None, health_checks: bool) -> str:
    return f"age {max_age}, {'with' if health_checks else 'without'} checks"


def aliases(database: dict[str, Any]) -> dict[str, Any]:
    return {
        alias(max_age, checks): {
            **database, "CONN_MAX_AGE": max_age, "CONN_HEALTH_CHECKS": checks
        }
        for max_age, checks in SETTINGS
    }  # fmt: skip


def measure(decorators: Iterable[str], observer: Observer) -> dict[str, Any]:
    """Return failed units and whether an idle session was held, by decorator and alias."""
    pairs = [(decorator, alias(*settings)) for decorator in decorators for settings in SETTINGS]
    with ThreadPoolExecutor(len(pairs)) as threads:
        futures = {
            (decorator, name): threads.submit(measure_one, DECORATORS[decorator], name, observer)
            for decorator, name in pairs
        }
        found: dict[str, Any] = {}
        for (decorator, name), future in futures.items():
            found.setdefault(decorator, {})[name] = future.result(120)
        return found


def measure_one(decorator: Decorator, name: str, observer: Observer) -> dict[str, Any]:
    def short_lived() -> int:
        execute("SET SESSION wait_timeout = 1", alias=name)
        return session(name)

    unit, short_lived_unit = decorator(lambda: session(name)), decorator(short_lived)
    held = observer.count_left([unit()]) > 0
    failed = 0
    for _ in range(KILLS):
        with contextlib.suppress(Exception):
            observer.kill(unit())
        failed += count_failed(unit, 1)
    for _ in range(TIMEOUTS):
        with contextlib.suppress(Exception):
            observer.wait_until_gone([short_lived_unit()])
        failed += count_failed(unit, 1)
    with contextlib.suppress(Exception):
        connections[name].close()
    return {"failed": failed, "held": held}
