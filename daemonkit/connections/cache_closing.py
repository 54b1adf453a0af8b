"""Closing Django's caches after a unit of work, as Django does after a request."""

from __future__ import annotations

import logging
import sys
import time

from django.core.cache import caches

from daemonkit.errors import one_line

logger = logging.getLogger(__name__)

WARNING_INTERVAL = 60.0
"""Seconds between two warnings about one cache that cannot be closed."""

_backends: tuple[object, set[str]] = (None, set())
_warned: dict[str, float] = {}


def close_caches() -> None:
    """Close each open cache. A cache that raises is logged, and the others are still closed.

    Django imports a backend when its cache is first used. Until then no cache can be open, and the
    search for open caches is skipped: it costs as much as the rest of an empty unit of work.
    """
    known, modules = _backends
    if known is not caches.settings:
        modules = _note_backends()
    if sys.modules.keys().isdisjoint(modules):
        return
    for cache in caches.all(initialized_only=True):
        try:
            cache.close()
        except Exception as error:
            _warn(f"{type(cache).__module__}.{type(cache).__qualname__}", error)


def forget_warnings() -> None:
    """Warn again, as in a new process."""
    _warned.clear()


def _note_backends() -> set[str]:
    """Remember and return the modules of the backends in the CACHES setting."""
    global _backends
    modules = {cache["BACKEND"].rpartition(".")[0] for cache in caches.settings.values()}
    _backends = caches.settings, modules
    return modules


def _warn(cache: str, error: Exception) -> None:
    now = time.monotonic()
    if now - _warned.get(cache, -WARNING_INTERVAL) >= WARNING_INTERVAL:
        _warned[cache] = now
        logger.warning("cache %s could not be closed: %s", cache, one_line(error))
