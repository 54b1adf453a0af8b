"""One event loop for a life, on a thread of its own.

Whoever has something awaited waits on its own thread, and meanwhile does there what the coroutine
hands over by ``sync_to_async``, as under ``async_to_sync``. So the ORM stays on that thread, with
its connections and its transactions, while tasks live on from one tick to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from asgiref.sync import AsyncToSync, sync_to_async

from daemonkit.connections.holding import close_idle
from daemonkit.connections.units import fresh_connections
from daemonkit.event_loop.executor import ServingExecutor
from daemonkit.event_loop.work import AsyncWork, stack_of_served_work

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.process.stopping import Stop

LEAVING_TIME = 1.0
"""Seconds for the loop's thread to end when all tasks have ended."""


logger = logging.getLogger("daemonkit")


class Host(Protocol):
    """The life that an event loop belongs to. ``home`` is the thread that runs it, None for a bare
    ``iterate()``."""

    home: int | None
    stop_timeout: float

    @property
    def daemon(self) -> Daemon: ...
    @property
    def stop(self) -> Stop: ...
    def nudge(self) -> None: ...
    def ask_to_stop(self, reason: str) -> None: ...


class EventLoop:
    """The event loop of one life.

    Tasks that live on between ticks have their sync work done by the life's home thread:
    ``nudge()`` ends its wait, so that it comes to ``serve_tasks()``.
    """

    def __init__(self, life: Host) -> None:
        self._life = life
        home = life.home or threading.get_ident()
        self._home = ServingExecutor(home, life.nudge)
        self._raised: BaseException | None = None
        self._running: dict[int, AsyncWork] = {}
        """By the thread that waits for it."""
        self._unfinished: set[AsyncWork] = set()
        self._left = ["the event loop"]
        self._loop = asyncio.new_event_loop()
        # Where asgiref looks for the thread of a task that no tick and no job has started.
        AsyncToSync.loop_thread_executors[self._loop] = self._home  # type: ignore[assignment]
        self._thread = threading.Thread(target=self._run, name="daemonkit-event-loop", daemon=True)
        self._thread.start()
        # Sync code of the home thread that calls async_to_sync() finds this loop from now on.
        if threading.get_ident() == home:
            self.run(sync_to_async(_nothing)())
        else:
            self.start(sync_to_async(_nothing)())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            try:
                self._loop.run_forever()
                break
            except (SystemExit, KeyboardInterrupt) as error:  # raised in a task
                self._raised = error
                self.end_life(f"{type(error).__name__} in a task")
        self._loop.close()

    # Waiting for coroutines

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Have the loop await it, and do on this thread what it hands over. Its result, or what it
        raises. What was cancelled by ``cancel()`` raises ``TimeoutError``."""
        thread = threading.get_ident()
        outer = self._running.get(thread)
        executor = self._home
        if thread != self._home.thread:
            executor = ServingExecutor(thread, successor=self._home)
        work = self._running[thread] = self.start(awaitable, executor=executor)
        try:
            executor.serve_until(lambda: work.is_done)
        finally:
            if outer is None:
                del self._running[thread]
            else:
                self._running[thread] = outer
            if executor is not self._home:
                executor.close()
        return work.outcome()

    def start(
        self,
        awaitable: Awaitable[Any],
        *,
        executor: ServingExecutor | None = None,
        on_done: Callable[[], None] = lambda: None,
    ) -> AsyncWork:
        """Have the loop await it, and go on at once. Its sync work waits for the home thread, or
        for the executor's. ``on_done`` is called on the loop's thread."""

        def ended(work: AsyncWork) -> None:
            self._unfinished.discard(work)
            on_done()

        work = AsyncWork(awaitable, self._loop, executor or self._home, ended)
        self._unfinished.add(work)
        self._loop.call_soon_threadsafe(work.start)
        return work

    def serve_until(self, is_over: Callable[[], bool]) -> None:
        """On the home thread: do what tasks hand over until something is over."""
        self._home.serve_until(is_over)

    def wake(self) -> None:
        """Have ``serve_until()`` ask again. From any thread."""
        self._home.wake()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function on the loop's thread. From any thread."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(function)

    def end_life(self, reason: str) -> None:
        """End the life, as if a signal had asked for it. From any thread."""
        self._life.ask_to_stop(reason)

    def refuse(self, what: str, instead: str) -> None:
        """Raise ``RuntimeError`` on the loop's thread, which must not be blocked."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{what}() would block the event loop: write {instead}")

    def serve_tasks(self) -> None:
        """On the home thread, between ticks: do what tasks have handed over by now, as one unit of
        work."""
        if self._home.has_work:
            with fresh_connections:
                self._home.serve_what_waits()
            close_idle(0)

    # From the watcher's thread

    def cancel(self, thread: int) -> bool:
        """Cancel what a thread has awaited; False if it is at something else."""
        work = self._running.get(thread)
        if work is None or work.is_done:
            return False
        work.cancel()
        return True

    def cancel_all(self) -> None:
        """Cancel all that ticks, jobs and ``lifespan`` have begun."""
        for work in list(self._unfinished):
            work.cancel()

    def stack(self, thread: int) -> str:
        """Where the task stands that a thread waits for; "" if it is at something else."""
        work = self._running.get(thread)
        if work is None:
            return ""
        return work.stack(self._thread.ident) + stack_of_served_work(thread)

    # The end

    def close(self) -> None:
        """Cancel all tasks, and end the loop, within ``stop_timeout``. On the home thread. Raises
        what a task has raised to end the process."""
        seconds = self._life.stop_timeout
        ending = self.start(self._end_all(seconds))
        self._home.serve_until(lambda: ending.is_done, seconds)
        self.call(self._loop.stop)
        self._home.close()
        self._thread.join(LEAVING_TIME)
        AsyncToSync.loop_thread_executors.pop(self._loop, None)
        if self._left:
            logger.error("%s: did not end: %s", self._life.daemon.name, ", ".join(self._left))
        if self._raised is not None and not self._life.stop.forced:
            raise self._raised

    async def _end_all(self, seconds: float) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        self._left = sorted(task.get_name() for task in tasks)
        for task in tasks:
            task.cancel()
        done, pending = await asyncio.wait(tasks, timeout=seconds) if tasks else (set(), set())
        self._left = sorted(task.get_name() for task in pending)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                context = {"message": "a task failed when it was cancelled",
                           "exception": error, "task": task}  # fmt: skip
                self._loop.call_exception_handler(context)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()


def _nothing() -> None: ...
