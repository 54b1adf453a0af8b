"""Keep or drop a connection that needs a check after a unit of work."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from daemonkit.connections.drop_reasons import Failure, may_roll_back, why_drop
from daemonkit.connections.link import Link
from daemonkit.connections.wrappers import Wrapper
from daemonkit.errors import Problem, classify, one_line

logger = logging.getLogger(__name__)

_HOUR = 3600.0
_warned_at = float("-inf")


def drop_if_unhealthy(
    link: Link, wrapper: Wrapper, error: BaseException | None, behind: list[Failure]
) -> bool:
    """Drop a connection that cannot be kept, and log why. Return whether it was dropped.

    An open transaction that may be rolled back is rolled back first.
    """
    link.inspect_if_replaced(wrapper)
    if any(failure.is_from_elsewhere for failure in behind):
        link.suspect()
    if may_roll_back(link, wrapper, behind):
        link.roll_back(wrapper)
    why = why_drop(link, wrapper, error, behind)
    if why is not None:
        link.drop()
        logger.warning("connection %r dropped: the unit of work %s", wrapper.alias, why)
    elif link.errors.lost is not None:
        _warn_of_kept_connection(link.errors.lost)
    link.errors.clear()
    return why is not None


def drop_unknown(link: Link, wrapper: Wrapper, error: Exception) -> None:
    """Drop a connection whose state cannot be determined."""
    link.drop()
    logger.warning("connection %r dropped: %s", wrapper.alias, one_line(error))


def drop_unprepared(links: Iterable[Link]) -> None:
    """Drop connections that failed while Django prepared them. They are open, but lack a time zone
    or an isolation level, and Django has sent no ``connection_created`` for them."""
    for link in links:
        link.drop()
        logger.warning("dropped a connection that failed while Django was preparing it")


def warn_of_foreign_connections(failures: Iterable[Failure]) -> None:
    """Warn of the first failure that means a lost connection which is not one of Django's."""
    for failure in failures:
        if failure.is_from_elsewhere and classify(failure.error) is Problem.LOST:
            _warn_of_kept_connection(one_line(failure.error))
            return


def forget_warning() -> None:
    """Warn again, as in a new process."""
    global _warned_at
    _warned_at = float("-inf")


def _warn_of_kept_connection(error: str) -> None:
    """Warn, at most once an hour, of an error that no Django connection of this thread raised."""
    global _warned_at
    if time.monotonic() - _warned_at < _HOUR:
        return
    _warned_at = time.monotonic()
    logger.warning(
        "a unit of work failed on a connection that is not one of django.db.connections (%s): "
        "a cursor or a driver's connection that is kept, as from lifespan(), is never reconnected; "
        "ask django.db.connection for a cursor in each unit of work",
        error,
    )
