"""One awaitable on the event loop, which other threads start, cancel and inspect."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

from asgiref import sync
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext

from daemonkit.event_loop import executor
from daemonkit.event_loop.executor import ServingExecutor
from daemonkit.process import forked_child


class AsyncWork:
    """An awaitable, and its result or error. Its sync work is done by ``serving``."""

    def __init__(
        self,
        awaitable: Awaitable[Any],
        loop: asyncio.AbstractEventLoop,
        serving: ServingExecutor,
        on_done: Callable[[AsyncWork], None],
    ) -> None:
        self.is_done = False
        self._process = os.getpid()
        self._on_done = on_done
        self._awaitable: Awaitable[Any] | None = awaitable
        self._loop, self._serving = loop, serving
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._is_cancelled = False
        self._result: Any = None
        self._error: BaseException | None = None

    # On the loop's thread

    def start(self) -> None:
        self._task = self._loop.create_task(self._complete(), context=self._context)
        self._task.add_done_callback(self._ended)

    async def _complete(self) -> None:
        _move_context_here(self._context, self._serving)
        awaitable, self._awaitable = self._awaitable, None
        assert awaitable is not None
        try:
            self._result = await awaitable
        except BaseException as error:  # SystemExit would end the loop
            self._error = error
        forked_child.end_if_forked(self._process, self._error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before its first step
            self._error = asyncio.CancelledError()
        self._task = None
        self.is_done = True
        self._on_done(self)
        self._serving.wake()

    # On other threads

    def outcome(self) -> Any:
        """Return the result or raise the error. Call it once, when the work is done."""
        result, self._result = self._result, None
        error, self._error = self._error, None
        if error is None:
            return result
        try:
            if self._is_cancelled and isinstance(error, asyncio.CancelledError):
                raise TimeoutError("was cancelled: its time limit has passed") from error
            raise error
        finally:
            del error  # breaks a cycle: its traceback refers to this frame

    def cancel(self) -> None:
        """Cancel the task. It may still clean up."""
        self._is_cancelled = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def stack(self, loops_thread: int | None) -> str:
        """The task's stack, as in a traceback. While the task is running, it is the stack of the
        loop's thread."""
        task = self._task
        frames = _frames_of(task.get_coro()) if task is not None else []
        if not frames:
            running = sys._current_frames().get(loops_thread or 0)
            return "".join(traceback.format_stack(running)) if running else ""
        return "".join(traceback.format_list(_summary(frames)))


def _move_context_here(context: contextvars.Context, serving: ServingExecutor) -> None:
    """Copy the caller's context into this task, and let asgiref find the caller's thread in it."""
    sync._restore_context(context)
    AsyncToSync.executors.current = None  # that of an outer async_to_sync() would take precedence
    sensitive = ThreadSensitiveContext()
    SyncToAsync.context_to_thread_executor[sensitive] = serving
    SyncToAsync.thread_sensitive_context.set(sensitive)


def _frames_of(awaited: Any) -> list[FrameType]:
    """The frames of a waiting coroutine and of those that it awaits; none if it is running."""
    frames: list[FrameType] = []
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            if getattr(awaited, f"{kind}_running", False):
                return []
            if frame := getattr(awaited, f"{kind}_frame", None):
                frames.append(frame)
                awaited = getattr(awaited, f"{kind}_await", None) or getattr(
                    awaited, f"{kind}_yieldfrom", None
                )
                break
        else:
            break
    return frames


def stack_of_served_work(thread: int) -> str:
    """A thread's stack in the sync work that a task has submitted; "" if there is none."""
    frame = sys._current_frames().get(thread)
    stack = traceback.extract_stack(frame) if frame is not None else []
    served = [number for number, step in enumerate(stack) if step.filename == executor.__file__]
    return "".join(traceback.format_list(stack[served[-1] + 1 :])) if served else ""


def _summary(frames: list[FrameType]) -> traceback.StackSummary:
    return traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
