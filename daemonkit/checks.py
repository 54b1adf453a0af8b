"""Checks of the databases: which time limits are missing, and whether the servers answer.

With default settings every driver hangs on a half-open link (the host is gone, a firewall has
dropped its state, the server is frozen). ``tick_timeout`` ends that; the driver's limits act
sooner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.checks import CheckMessage, Warning
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from daemonkit.connections.pauses import idle_timeout
from daemonkit.connections.units import fresh_connections
from daemonkit.errors import Problem, classify, one_line

TIME_LIMITS: Mapping[str, tuple[str, ...]] = {
    "mysql": ("connect_timeout", "read_timeout", "write_timeout"),
    "postgresql": ("connect_timeout", "tcp_user_timeout"),
}
"""The options that limit the wait on a half-open link. MySQL's read_timeout must be longer than the
longest statement: the server goes on with a statement whose client has given up. PostgreSQL's
tcp_user_timeout does not notice a frozen server whose kernel still answers."""


def missing_time_limits(wrapper: BaseDatabaseWrapper) -> list[str]:
    """Return the names of ``TIME_LIMITS`` that are not set for this connection."""
    options = wrapper.settings_dict["OPTIONS"]
    return [name for name in TIME_LIMITS.get(wrapper.vendor, ()) if name not in options]


def check_time_limits(**_: Any) -> list[CheckMessage]:
    """Check the settings, for ``manage.py check --deploy``. Connects to no server."""
    return [
        Warning(
            f"The database {alias!r} has no {', '.join(missing)} in its OPTIONS.",
            hint="Without them a half-open link holds a daemon up to its tick_timeout.",
            id="daemonkit.W001",
        )
        for alias in connections
        if (missing := missing_time_limits(connections[alias]))
    ]


@dataclass(frozen=True)
class Answer:
    """Whether one database answered, and what a daemon should know about it."""

    alias: str
    ok: bool
    text: str
    problem: Problem | None = None
    advice: tuple[str, ...] = ()


def ask_databases() -> Iterator[Answer]:
    """Connect to every database once and yield its answer."""
    for alias in connections:
        wrapper = connections[alias]
        try:
            with fresh_connections:
                text, advice = _ask(wrapper)
        except Exception as error:
            yield Answer(alias, False, one_line(error), classify(error))
        else:
            yield Answer(alias, True, text, advice=tuple(advice))


def _ask(wrapper: BaseDatabaseWrapper) -> tuple[str, list[str]]:
    wrapper.ensure_connection()
    version = ".".join(str(part) for part in wrapper.get_database_version())
    advice = [f"set OPTIONS[{name!r}]" for name in missing_time_limits(wrapper)]
    idle = idle_timeout(wrapper)
    limit = f", drops idle sessions after {idle:g} s" if idle else ""
    return f"{wrapper.display_name} {version}{limit}", advice
