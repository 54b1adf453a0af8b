"""One event loop for a daemon's life, on its own thread.

A thread that runs a coroutine waits for it, and meanwhile runs the work that the coroutine submits
by ``sync_to_async()``, as under ``async_to_sync()``. So queries run on that thread, with its
connections and transactions, while asyncio tasks go on from one tick to the next.
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
"""Seconds to wait for the loop's thread after all tasks have ended."""


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

    The sync work of tasks that run between ticks is done by the life's home thread: ``nudge()``
    ends its wait, and it calls ``serve_tasks()``.
    """

    def __init__(self, life: Host) -> None:
        self._life = life
        home = life.home or threading.get_ident()
        self._home = ServingExecutor(home, life.nudge)
        self._raised: BaseException | None = None
        self._running: dict[int, AsyncWork] = {}
        """The work that each thread waits for."""
        self._unfinished: set[AsyncWork] = set()
        self._left = ["the event loop"]
        self._loop = asyncio.new_event_loop()
        # Here asgiref finds the executor of a task that was started by no tick and no job.
        AsyncToSync.loop_thread_executors[self._loop] = self._home  # type: ignore[assignment]
        self._thread = threading.Thread(target=self._run, name="daemonkit-event-loop", daemon=True)
        self._thread.start()
        # After this, async_to_sync() on the home thread finds this loop.
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
        """Run an awaitable on the loop, and its sync work on this thread. Return its result.

        Raises what the awaitable raises, and ``TimeoutError`` if ``cancel()`` has cancelled it.
        """
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
        """Start an awaitable on the loop, without waiting for it.

        Its sync work is done by ``executor``, by default the home thread's. ``on_done`` is called
        on the loop's thread.
        """

        def ended(work: AsyncWork) -> None:
            self._unfinished.discard(work)
            on_done()

        work = AsyncWork(awaitable, self._loop, executor or self._home, ended)
        self._unfinished.add(work)
        self._loop.call_soon_threadsafe(work.start)
        return work

    def serve_until(self, is_over: Callable[[], bool]) -> None:
        """On the home thread: run the sync work of tasks until ``is_over()``."""
        self._home.serve_until(is_over)

    def wake(self) -> None:
        """Make ``serve_until()`` call ``is_over()`` again. Any thread may call this."""
        self._home.wake()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function on the loop's thread. Any thread may call this."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(function)

    def end_life(self, reason: str) -> None:
        """Stop the daemon, as a signal would. Any thread may call this."""
        self._life.ask_to_stop(reason)

    def refuse(self, what: str, instead: str) -> None:
        """Raise ``RuntimeError`` on the loop's thread, which must not be blocked."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{what}() would block the event loop: write {instead}")

    def serve_tasks(self) -> None:
        """On the home thread, between ticks: run the sync work that tasks have submitted, as one
        unit of work."""
        if self._home.has_work:
            with fresh_connections:
                self._home.serve_what_waits()
            close_idle(0)

    # From the watcher's thread

    def cancel(self, thread: int) -> bool:
        """Cancel the work that a thread waits for. False if it waits for none."""
        work = self._running.get(thread)
        if work is None or work.is_done:
            return False
        work.cancel()
        return True

    def cancel_all(self) -> None:
        """Cancel all unfinished work of ticks, jobs and ``lifespan()``."""
        for work in list(self._unfinished):
            work.cancel()

    def stack(self, thread: int) -> str:
        """The stack of the task that a thread waits for; "" if it waits for none."""
        work = self._running.get(thread)
        if work is None:
            return ""
        return work.stack(self._thread.ident) + stack_of_served_work(thread)

    # The end

    def close(self) -> None:
        """Cancel all tasks and end the loop, within ``stop_timeout``. Call it on the home thread.

        Raises the ``SystemExit`` or ``KeyboardInterrupt`` that a task has raised.
        """
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
