"""Units of work of coroutines. They share the thread on which Django runs their queries.

Coroutines overlap on that thread. The first one that enters begins a unit of work, and the last one
that leaves ends it. A coroutine can be cancelled at any ``await``, also while the thread enters or
leaves a unit for it. So a coroutine marks its end by a plain assignment, and the thread checks all
marks whenever a coroutine enters or leaves.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from asgiref.sync import sync_to_async

from daemonkit.connections.blocks import coroutine_depth, forget_finished_coroutines
from daemonkit.connections.thread import this_thread


class CoroutineUnit:
    """The unit of work of one coroutine: ``async with CoroutineUnit()``."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        self._task = weakref.ref(task) if task is not None else None
        self._has_left = False
        self.has_entered = False
        self.error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether the coroutine has left, or will never run again. Any thread may ask."""
        if self._has_left or self._task is None:
            return self._has_left
        task = self._task()
        return task is None or task.done() or task.get_loop().is_closed()

    async def __aenter__(self) -> None:
        coroutine_depth.set(coroutine_depth.get() + 1)
        try:
            await sync_to_async(_enter)(self)
        except BaseException:  # if it is a cancellation, the thread may still be in _enter()
            self._has_left = True
            coroutine_depth.set(coroutine_depth.get() - 1)
            if self.has_entered:
                await _leave()
            raise

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.error, self._has_left = error, True
        coroutine_depth.set(coroutine_depth.get() - 1)
        await _leave()


_entered: weakref.WeakKeyDictionary[asyncio.Task[Any], list[CoroutineUnit]]
_entered = weakref.WeakKeyDictionary()


async def enter_coroutine() -> None:
    """``__aenter__`` of ``fresh_connections``, which is one object for all coroutines."""
    unit = CoroutineUnit()
    await unit.__aenter__()
    if task := asyncio.current_task():
        _entered.setdefault(task, []).append(unit)


async def leave_coroutine(error: BaseException | None) -> None:
    """``__aexit__`` of ``fresh_connections``. A block that was entered by another task ends when
    that task ends."""
    task = asyncio.current_task()
    units = _entered.get(task) if task else None
    if units:
        await units.pop().__aexit__(None, error, None)
    else:
        await _leave()


async def _leave() -> None:
    """Make the thread remove finished coroutines. A cancellation is only raised after that."""
    cancelled: BaseException | None = None
    while True:
        try:
            await sync_to_async(_clean)()
        except asyncio.CancelledError as error:
            cancelled = error
        else:
            break
    if cancelled is not None:
        raise cancelled


# On the thread of the queries


def _enter(unit: CoroutineUnit) -> None:
    """Begin a unit of work, or join the running one. Joining has the connections validated again:
    under a steady load the running one may never end."""
    thread = this_thread()
    forget_finished_coroutines(thread)
    if unit.is_over:
        return
    if thread.coroutines or thread.depth:
        thread.distrust()
    else:
        thread.begin()
    thread.coroutines.append(unit)
    unit.has_entered = True
    forget_finished_coroutines(thread)  # this one may have been cancelled meanwhile


def _clean() -> None:
    forget_finished_coroutines(this_thread())
