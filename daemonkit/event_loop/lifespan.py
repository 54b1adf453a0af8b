"""An async context manager that stays open for a daemon's life."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from daemonkit.event_loop.loop import EventLoop


class HeldOpen:
    """A sync context manager that holds an async one open in a task of the event loop.

    The async one is entered and left in the same task, as a ``TaskGroup`` or a time limit requires.
    If it ends early, as a ``TaskGroup`` does when one of its tasks fails, the daemon is asked to
    stop, and the error is raised by ``__exit__()``.
    """

    def __init__(self, manager: AbstractAsyncContextManager[Any], loop: EventLoop) -> None:
        self._manager, self._loop = manager, loop
        self._is_open = self._is_leaving = False
        self._error: BaseException | None = None

    def __enter__(self) -> None:
        self._leave = asyncio.Event()
        self._work = self._loop.start(self._hold(), on_done=self._ended)
        self._loop.serve_until(lambda: self._is_open or self._work.is_done)
        if not self._is_open:
            self._work.outcome()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._error, self._is_leaving = error, True
        self._loop.call(self._leave.set)
        self._loop.serve_until(lambda: self._work.is_done)
        try:
            self._work.outcome()
        except BaseException as raised:
            if raised is error:
                return False
            raise
        finally:
            self._error = None
        return error is not None  # the async manager has suppressed it

    async def _hold(self) -> None:
        async with self._manager:
            self._is_open = True
            self._loop.wake()
            await self._leave.wait()
            if self._error is not None:
                raise self._error

    def _ended(self) -> None:
        if self._is_open and not self._is_leaving:
            self._loop.end_life("its lifespan() has ended")
