"""Why a connection cannot be kept after a unit of work. Questions only: ``thread.py`` acts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from django.db import DataError, Error, IntegrityError

from daemonkit.connections.link import Link
from daemonkit.connections.wrappers import Wrapper
from daemonkit.errors import Problem, chain, classify, one_line

_HARMLESS = (IntegrityError, DataError)
"""Errors that are caused by the data that was sent; the session is still healthy."""


class Failure(NamedTuple):
    """One database error behind the exception that ended a unit of work."""

    error: BaseException
    is_harmless: bool
    links: list[Link]
    """The links whose connection raised it."""
    is_drivers: bool
    """Whether a driver raised it. Otherwise a project's own code did."""

    def is_of(self, link: Link) -> bool:
        """Whether it may concern the connection of this link."""
        return link in self.links or not (self.links or self.is_drivers)

    @property
    def is_from_elsewhere(self) -> bool:
        """Whether it was raised by a connection that is not in ``django.db.connections``."""
        return self.is_drivers and not self.links


def failures(error: BaseException | None, links: Iterable[Link]) -> list[Failure]:
    """The database errors in the chain of an exception."""
    if error is None:
        return []
    wrappers = {link: wrapper for link in links if (wrapper := link.wrapper()) is not None}
    modules = {wrapper.Database for wrapper in wrappers.values()}
    return list(_failures(error, list(wrappers), modules))


def _failures(error: BaseException, links: list[Link], modules: set[Any]) -> Iterator[Failure]:
    drivers = tuple(module.Error for module in modules)
    harmless = _HARMLESS + tuple(
        kind for module in modules for kind in (module.IntegrityError, module.DataError)
    )
    translated: set[int] = set()
    for found in chain(error):
        origin: BaseException | None = found
        if isinstance(found, Error):
            origin = found.__cause__ or found.__context__
            if not isinstance(origin, drivers):
                origin = None
            translated.add(id(origin))
        elif not isinstance(found, drivers) or id(found) in translated:
            continue
        seen_by = [link for link in links if found in link.errors or origin in link.errors]
        yield Failure(found, isinstance(found, harmless), seen_by, origin is not None)


def why_drop(
    link: Link, wrapper: Wrapper, error: BaseException | None, behind: list[Failure]
) -> str | None:
    """Say why the connection cannot be kept ("ended in ...", "left ..."); None if it can."""
    if wrapper.connection is not None:
        if error is not None and link.was_used(wrapper):
            if not isinstance(error, Exception):
                return f"was interrupted by {type(error).__name__}"
            if why := _ended_in(link, behind):
                return why
        if link.errors.interrupted is not None:
            return f"was interrupted in a call of the driver: {link.errors.interrupted}"
        if link.errors.read_only is not None:
            return f"found it read-only: {link.errors.read_only}"
        if link.errors.lost is not None and not is_lost_elsewhere(link):
            return f"lost it: {link.errors.lost}"
    try:
        return left_open(link, wrapper)
    except Exception as trouble:
        if classify(trouble) is Problem.LOST:
            return f"lost it: {one_line(trouble)}"
        return f"left it in an unknown state ({one_line(trouble)})"


def _ended_in(link: Link, behind: list[Failure]) -> str | None:
    for failure in behind:
        if failure.is_harmless:
            continue
        problem = classify(failure.error)
        if failure.is_from_elsewhere and problem is not Problem.READ_ONLY:
            continue
        if problem is Problem.LOST and is_lost_elsewhere(link):
            continue
        if failure.is_of(link) or failure.is_from_elsewhere:
            return f"ended in {one_line(failure.error)}"
    return None


def is_lost_elsewhere(link: Link) -> bool:
    """Whether the error about a lost session concerns another session than the link's own."""
    return link.errors.from_elsewhere and link.answers()


def may_roll_back(link: Link, wrapper: Wrapper, behind: list[Failure]) -> bool:
    """Whether an open transaction may be rolled back without a warning: DATABASES turns autocommit
    off, or the unit of work ended only in an IntegrityError or a DataError."""
    if wrapper.connection is None or wrapper.in_atomic_block or link.raw.session.seems_idle():
        return False
    if link.errors.interrupted is not None:
        return False
    ended_harmlessly = bool(behind) and all(failure.is_harmless for failure in behind)
    return ended_harmlessly or not wrapper.settings_dict["AUTOCOMMIT"]


def left_open(link: Link, wrapper: Wrapper) -> str | None:
    """Say what a unit of work left open in the session or the wrapper; None if nothing."""
    if wrapper.in_atomic_block or wrapper.savepoint_ids:
        return "left an atomic() block open"
    if wrapper.connection is None:
        return None
    if wrapper.autocommit != wrapper.settings_dict["AUTOCOMMIT"]:
        return "left autocommit off"
    if not link.raw.session.is_in_transaction():
        return None
    return "lost it in a transaction" if link.was_closed_by_server() else "left a transaction open"
