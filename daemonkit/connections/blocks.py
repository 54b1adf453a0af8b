"""Enter and leave a unit of work, in a way that is safe against interruption at any point.

A signal handler may raise wherever Python checks for signals: at the start of a function, after a
call, at the end of a loop's body. So the last step of entering is a plain assignment. So is the
last step of leaving, which is in a ``finally``.

One point remains: the start of ``__exit__`` itself, before its first line. Python looks up that
method when a ``with`` block begins and keeps it until the block ends. So each outermost block gets
its own method object, and a weak reference notifies the thread when it is deleted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import MethodType
from typing import TYPE_CHECKING, Any

from daemonkit.connections.thread import ThreadConnections, here, this_thread

coroutine_depth: ContextVar[int] = ContextVar("coroutine_depth", default=0)
"""How many units of work of coroutines the current code is nested in."""


def is_apart() -> bool:
    """Whether a block is outside of all units of work of coroutines, such as a tick that runs while
    a task is in the middle of its own. Such a block is a separate unit of work."""
    return not coroutine_depth.get()


class Block:
    """A ``with`` block that may be nested. A thread's outermost one is a unit of work."""

    def __enter__(self) -> None:
        thread = here.thread or this_thread()
        if thread.coroutines:
            forget_finished_coroutines(thread)
        if not thread.depth and (not thread.coroutines or is_apart()):
            thread.begin()
        thread.depth += 1

    if TYPE_CHECKING:

        def __exit__(
            self, kind: object, error: BaseException | None, traceback: object
        ) -> None: ...


class _Exit:
    """Gives each outermost block its own ``__exit__``, and is notified when that is deleted."""

    def __get__(self, block: Block | None, owner: type) -> Callable[..., None]:
        thread = here.thread or this_thread()
        if thread.depth:
            return _leave_inner
        exit_method = MethodType(_leave_outermost, thread)
        thread.outermost_block = weakref.ref(exit_method, _abandoned)
        return exit_method


setattr(Block, "__exit__", _Exit())  # noqa: B010  type checkers see the plain method


def _leave_inner(*details: Any) -> None:
    """``details`` are the arguments of ``__exit__``. ``ExitStack`` passes the instance first."""
    thread = here.thread or this_thread()
    leave(thread, max(0, thread.depth - 1), details[-2])


def _leave_outermost(thread: ThreadConnections, *details: Any) -> None:
    try:
        if thread.depth and thread is here.thread and (not thread.coroutines or is_apart()):
            thread.end(details[-2])
    except BaseException:
        thread.drop_own()
        raise
    finally:
        thread.depth = 0
        thread.outermost_block = None


def _abandoned(block: object) -> None:
    """Called when the ``__exit__`` of an outermost block is deleted. Acts if it did not finish."""
    thread = here.thread
    if thread is not None and thread.depth and thread.outermost_block is block:
        if not thread.coroutines:
            thread.drop_own()
        thread.depth = 0


def leave(thread: ThreadConnections, depth: int, error: BaseException | None) -> None:
    """Leave blocks until ``depth`` of them are left. If that is 0, end the unit of work."""
    if not depth:
        _leave_outermost(thread, None, error, None)
    elif thread.depth > depth:
        thread.depth = depth


def forget_finished_coroutines(thread: ThreadConnections) -> None:
    """Remove the coroutines that have finished, and end the unit of work if none is left. While
    others run, they may be using a connection: it is only validated before its next query, and an
    error is kept for the end of the last coroutine."""
    over = [unit for unit in thread.coroutines if unit.is_over]
    if not over:
        return
    going_on = [unit for unit in thread.coroutines if unit not in over]
    errors = [unit.error for unit in over if unit.error is not None]
    thread.error_of_coroutines = thread.error_of_coroutines or next(iter(errors), None)
    try:
        if not going_on and not thread.depth:
            thread.end(thread.error_of_coroutines)
        elif errors:
            thread.distrust()
    except BaseException:
        thread.drop_own()
        raise
    finally:
        thread.coroutines = going_on
        if not going_on:
            thread.error_of_coroutines = None
