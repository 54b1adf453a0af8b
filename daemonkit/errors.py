"""What an exception means for the database, and its text in one line.

Recovery never depends on the meaning: after a ``django.db.Error`` the connections of a unit of work
are cleaned in any case. The meaning is used for the log, the back-off and the exit code.
"""

from __future__ import annotations

from collections.abc import Iterator

from daemonkit.problem import Problem

__all__ = ["Problem", "chain", "classify", "one_line"]

_MEMBERS_NAMED = 3
"""How many errors of a group a line names before it says "and N more"."""


def classify(error: BaseException | None) -> Problem | None:
    """The problem of the database that the error reports; None if it reports none.

    This looks at the whole chain: if a server is killed in the middle of ``atomic()``, the block
    raises the 2002 of its own reconnect, with the 2013 as its context. A lost connection anywhere
    in the chain takes precedence, because the outcome of its statement is unknown.
    """
    found = [problem for link in chain(error) if (problem := _meaning(link))]
    return Problem.LOST if Problem.LOST in found else (found[0] if found else None)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, then the members of a group and the ``__cause__`` and ``__context__`` of
    each: every error once, the nearest first."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop(0)
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [*_members(link), link.__cause__, link.__context__]


def one_line(error: BaseException) -> str:
    """An exception in one line: its class and text. For a group, also those of its members."""
    if members := _members(error):
        text = ": ".join(filter(None, (_message(error), _list(members))))
    else:
        text = _text(error)
    return f"{type(error).__name__}: {' '.join(text.split())}".rstrip(": ")


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def _message(group: BaseException) -> str:
    return str(getattr(group, "message", ""))  # str(group) only counts the members


def _list(members: tuple[BaseException, ...]) -> str:
    named = [one_line(member) for member in members[:_MEMBERS_NAMED]]
    if more := len(members) - len(named):
        named.append(f"and {more} more")
    return "; ".join(named)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"(its text failed with {type(failure).__name__})"


def _meaning(error: BaseException) -> Problem | None:
    from daemonkit.error_meanings import meaning  # not before something fails

    return meaning(error)
