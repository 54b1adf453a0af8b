"""The setting DAEMONKIT, which applies to all daemons of a project, and its defaults."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

NO_DATABASE = "django.db.backends.dummy"
"""The engine that Django uses for a project whose DATABASES is empty."""

_DEFAULTS: dict[str, Any] = {
    "database": "default",
    "keep_runs": 100,
    "store_errors": "text",
    "listen": None,
    "status": True,
    "version": None,
}
_STORE_ERRORS = ("text", "class", "none")


def database() -> str:
    """Return the alias of the database with daemonkit's own tables."""
    alias = _configured("database")
    if alias not in settings.DATABASES:
        raise ImproperlyConfigured(f"DAEMONKIT['database'] is {alias!r}, which is not in DATABASES")
    return str(alias)


def listen() -> str:
    """Return the alias that reaches the server of ``database()`` without a pooler, for LISTEN."""
    alias = _configured("listen") or database()
    if alias not in settings.DATABASES:
        raise ImproperlyConfigured(f"DAEMONKIT['listen'] is {alias!r}, which is not in DATABASES")
    return str(alias)


def keep_runs() -> int:
    """Return how many rows the ledger keeps for each job: the newest ones."""
    rows = _configured("keep_runs")
    if not isinstance(rows, int) or rows < 1:
        raise ImproperlyConfigured(
            f"DAEMONKIT['keep_runs'] must be a number above zero, not {rows!r}"
        )
    return rows


def store_errors() -> str:
    """Return how much of an error is stored: "text", "class" (the name of its class) or "none".

    The text of an error may contain personal data.
    """
    choice = _configured("store_errors")
    if choice not in _STORE_ERRORS:
        choices = ", ".join(map(repr, _STORE_ERRORS))
        raise ImproperlyConfigured(
            f"DAEMONKIT['store_errors'] must be one of {choices}, not {choice!r}"
        )
    return str(choice)


def status() -> bool:
    """Return whether processes write their status to the database, and read orders there."""
    choice = _configured("status")
    if not isinstance(choice, bool):
        raise ImproperlyConfigured(f"DAEMONKIT['status'] must be True or False, not {choice!r}")
    return choice


def version() -> str | None:
    """Return the version of the project's code, for the status; None if it is not given."""
    choice = _configured("version")
    return None if choice is None else str(choice)


def _configured(name: str) -> Any:
    configured = getattr(settings, "DAEMONKIT", {})
    if not isinstance(configured, dict) or (unknown := set(configured) - set(_DEFAULTS)):
        is_dictionary = isinstance(configured, dict)
        wrong = f"it has {sorted(unknown)}" if is_dictionary else "it is not a dictionary"
        raise ImproperlyConfigured(f"DAEMONKIT takes {', '.join(_DEFAULTS)}; {wrong}")
    return configured.get(name, _DEFAULTS[name])
