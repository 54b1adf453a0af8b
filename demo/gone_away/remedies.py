"""The usual remedies for lost connections, as decorators of a unit of work, and daemonkit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from django.db import OperationalError, close_old_connections, connection

from daemonkit import fresh_connections

Work: TypeAlias = Callable[..., Any]
Decorator: TypeAlias = Callable[[Work], Work]


def nothing(work: Work) -> Work:
    return work


def cleaned(handler: Work) -> Work:
    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            close_old_connections()
            return handler(*args, **kwargs)
        finally:
            close_old_connections()

    return call


def cleaned_before(work: Work) -> Work:
    def call(*args: Any) -> Any:
        close_old_connections()
        return work(*args)

    return call


def cleaned_after(work: Work) -> Work:
    def call(*args: Any) -> Any:
        try:
            return work(*args)
        finally:
            close_old_connections()

    return call


def retried(work: Work) -> Work:
    def call(*args: Any) -> Any:
        try:
            return work(*args)
        except OperationalError:
            connection.close()
            return work(*args)

    return call


class Remedy(NamedTuple):
    """A decorator of each unit of work, and the settings of the connection."""

    decorate: Decorator
    max_age: int | None
    health_checks: bool = False

    @property
    def is_daemonkit(self) -> bool:
        return self.decorate is fresh_connections

    @property
    def settings(self) -> dict[str, Any]:
        return {"CONN_MAX_AGE": self.max_age, "CONN_HEALTH_CHECKS": self.health_checks}


REMEDIES = {
    "nothing": Remedy(nothing, None),
    "health checks": Remedy(nothing, None, True),
    "retry": Remedy(retried, None),
    "cleaned": Remedy(cleaned, 0),
    "cleaned, kept": Remedy(cleaned, None, True),
    "daemonkit": Remedy(fresh_connections, None),
}

SETTINGS: list[tuple[int | None, bool]] = [
    (max_age, health_checks) for max_age in (0, 300, None) for health_checks in (False, True)
]
"""The tested combinations of CONN_MAX_AGE and CONN_HEALTH_CHECKS."""

DECORATORS: dict[str, Decorator] = {
    "nothing": nothing,
    "before": cleaned_before,
    "after": cleaned_after,
    "both": cleaned,
    "daemonkit": fresh_connections,
}
"""The decorators that are tested with each of SETTINGS."""

BARE_DECORATORS = [name for name in DECORATORS if name != "daemonkit"]
