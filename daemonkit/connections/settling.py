"""What becomes of a connection after a unit of work that was not calm: it is kept or dropped."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from daemonkit.connections.doubts import Failure, may_roll_back, why_drop
from daemonkit.connections.link import Link
from daemonkit.connections.wrappers import Wrapper
from daemonkit.errors import Problem, classify, one_line

logger = logging.getLogger(__name__)

_HOUR = 3600.0
_hinted = float("-inf")


def was_dropped(
    link: Link, wrapper: Wrapper, error: BaseException | None, behind: list[Failure]
) -> bool:
    """Drop a connection that cannot be kept, and log why. Roll back what may be rolled back."""
    link.look_again(wrapper)
    if any(failure.is_from_elsewhere for failure in behind):
        link.suspect()
    if may_roll_back(link, wrapper, behind):
        link.roll_back(wrapper)
    why = why_drop(link, wrapper, error, behind)
    if why is not None:
        link.drop()
        logger.warning("connection %r dropped: the unit of work %s", wrapper.alias, why)
    elif link.errors.lost is not None:
        _hint_at_what_is_kept(link.errors.lost)
    link.errors.clear()
    return why is not None


def drop_unknown(link: Link, wrapper: Wrapper, error: Exception) -> None:
    """Drop a connection whose state cannot be found out."""
    link.drop()
    logger.warning("connection %r dropped: %s", wrapper.alias, one_line(error))


def drop_half_made(links: Iterable[Link]) -> None:
    """Drop connections that failed while Django prepared them. They are open, and lack a time zone
    or an isolation level; nobody was told of them."""
    for link in links:
        link.drop()
        logger.warning("a connection was dropped that had failed while it was being made")


def warn_of_strangers(failures: Iterable[Failure]) -> None:
    """Hint at the first lost connection among them that is none of Django's."""
    for failure in failures:
        if failure.is_from_elsewhere and classify(failure.error) is Problem.LOST:
            _hint_at_what_is_kept(one_line(failure.error))
            return


def forget_hint() -> None:
    """Hint again, as in a new process."""
    global _hinted
    _hinted = float("-inf")


def _hint_at_what_is_kept(error: str) -> None:
    """Warn, once an hour, of an error that none of Django's connections of this thread raised."""
    global _hinted
    if time.monotonic() - _hinted < _HOUR:
        return
    _hinted = time.monotonic()
    logger.warning(
        "a unit of work failed on a connection that is not one of django.db.connections (%s): "
        "nothing renews a cursor or a driver's connection that is kept, as from lifespan(); "
        "ask django.db.connection for a cursor in each unit of work",
        error,
    )
