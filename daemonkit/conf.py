"""The setting DAEMONKIT: what holds for all daemons of a project. Its defaults are in here."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_DEFAULTS: dict[str, Any] = {"database": "default", "keep_runs": 100, "store_errors": "text"}
_STORE_ERRORS = ("text", "class", "none")


def database() -> str:
    """The alias of the database that has daemonkit's own tables."""
    alias = _said("database")
    if alias not in settings.DATABASES:
        raise ImproperlyConfigured(f"DAEMONKIT['database'] is {alias!r}, which DATABASES lacks")
    return str(alias)


def keep_runs() -> int:
    """How many rows of the ledger are kept of each job: the newest."""
    rows = _said("keep_runs")
    if not isinstance(rows, int) or rows < 1:
        raise ImproperlyConfigured(f"DAEMONKIT['keep_runs'] is a number above zero, not {rows!r}")
    return rows


def store_errors() -> str:
    """How much of an error daemonkit's tables hold, since its text may hold personal data: "text",
    "class" (only the name of its class) or "none"."""
    choice = _said("store_errors")
    if choice not in _STORE_ERRORS:
        choices = ", ".join(map(repr, _STORE_ERRORS))
        raise ImproperlyConfigured(f"DAEMONKIT['store_errors'] is one of {choices}, not {choice!r}")
    return str(choice)


def _said(name: str) -> Any:
    said = getattr(settings, "DAEMONKIT", {})
    if not isinstance(said, dict) or (unknown := set(said) - set(_DEFAULTS)):
        wrong = "no dictionary" if not isinstance(said, dict) else f"it has {sorted(unknown)}"
        raise ImproperlyConfigured(f"DAEMONKIT takes {', '.join(_DEFAULTS)}; {wrong}")
    return said.get(name, _DEFAULTS[name])
