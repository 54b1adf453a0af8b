"""The warning about a unit of work that holds a connection unused for too long.

A server drops a session that is idle for longer than its limit. The next query of the unit of work
then fails. Only a call of ``release_connections()`` before the pause prevents that.
"""

from __future__ import annotations

import logging
import time

from daemonkit.connections.wrappers import Wrapper

logger = logging.getLogger(__name__)

_HOUR = 3600.0
_limits: dict[str, tuple[float, float | None]] = {}
_warned: dict[str, float] = {}


def warn_of_pause(wrapper: Wrapper, pause: float, site: str) -> None:
    """Warn, once an hour for each alias, if the server drops sessions that are idle for ``pause``
    seconds. ``site`` is the file and line near the pause."""
    now, alias = time.monotonic(), wrapper.alias
    if now - _warned.get(alias, -_HOUR) < _HOUR:
        return
    try:
        asked, limit = _limits.get(alias, (-_HOUR, None))
        if now - asked >= _HOUR:
            wrapper.health_check_enabled, wrapper.health_check_done = True, False
            _limits[alias] = now, idle_timeout(wrapper)
            limit = _limits[alias][1]
    except Exception:
        return  # the database is away, and that is logged elsewhere
    if limit is not None and pause > limit:
        _warned[alias] = now
        logger.warning(
            "connection %r was held unused for %.0f s by a unit of work, near %s, and the server "
            "drops a session that is idle for %.0f s: call release_connections() before the pause",
            alias,
            pause,
            site,
            limit,
        )


def forget_warnings() -> None:
    """Warn again, and ask the servers for their limits again, as in a new process."""
    _warned.clear()
    _limits.clear()


def idle_timeout(wrapper: Wrapper) -> float | None:
    """Seconds after which the server drops an idle session, None if never. Asks the server."""
    if wrapper.vendor == "mysql":
        query, unit = "SELECT @@session.wait_timeout", 1.0
    elif wrapper.vendor == "postgresql":
        query, unit = "SELECT setting FROM pg_settings WHERE name = 'idle_session_timeout'", 0.001
    else:
        return None
    with wrapper.temporary_connection() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()  # PostgreSQL before 14 has no such setting
    return float(row[0]) * unit or None if row else None
