"""The thread pool: its tasks are units of work, and its threads close their connections."""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from daemonkit.connections.futures import Awaited, PoolFuture
from daemonkit.connections.holding import close_all, close_idle, until_next_close
from daemonkit.connections.units import fresh_connections
from daemonkit.process import forked_child

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Pool:
    """A thread pool for work with Django's ORM.

    Each submitted task is a unit of work: it starts and ends with healthy connections, as under
    ``fresh_connections``. An idle thread closes the connections whose ``CONN_MAX_AGE`` has passed,
    and a thread that ends closes all of its connections. Threads are started when they are needed,
    at most ``threads`` of them. In a forked child the pool is empty and starts its own threads.

    A tick, or a run of a job, waits at its end for the tasks that it has submitted. If one has
    failed and nobody has asked its future, that is logged, and the tick fails. With ``detached``
    the tasks may outlive the tick, and a failure is only logged.

    Call ``close()``, or use the pool in a ``with`` block. Otherwise it is closed when it is garbage
    collected, or when the interpreter ends. Raises ``ValueError`` for fewer threads than one.
    """

    def __init__(self, threads: int = 10, *, name: str = "pool", detached: bool = False) -> None:
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"Pool() needs a whole number of threads above zero, not {threads!r}")
        self._shared, self._is_detached = _Shared(threads, name), detached
        self._end = weakref.finalize(self, self._shared.end)

    def submit(
        self,
        work: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Call ``work`` on a thread of the pool, as a unit of work.

        The future gets the result or the error (also ``SystemExit``) after the unit of work has
        ended, so its callbacks run outside of it. Raises ``RuntimeError`` if the pool is closed.
        """
        future: PoolFuture[Result] = PoolFuture()
        in_context = contextvars.copy_context().run  # so that beat() finds the tick it belongs to
        awaited = None if self._is_detached else Awaited.of_this_tick()
        if awaited is None:
            self._shared.put([(future, in_context, (work, *args), kwargs)])
            return future
        awaited.add(future)
        Future.add_done_callback(future, awaited.forget)
        try:
            self._shared.put([(future, in_context, (awaited.helping, work, *args), kwargs)])
        except RuntimeError:
            future.cancel()
            raise
        return future

    def fulfil(self, promises: Iterable[tuple[Promise, Callable[..., Any]]]) -> None:
        """Submit several tasks at once, each with its own promise.

        Each promise gets its result on the thread that did the work. Raises ``RuntimeError`` if the
        pool is closed.
        """
        self._shared.put([(promise, work, (), {}) for promise, work in promises])

    def close(self, *, cancel: bool = False, timeout: float | None = None) -> bool:
        """Refuse new tasks, finish the submitted ones, and end the threads.

        With ``cancel``, tasks that have not started are cancelled instead. ``timeout`` is the time
        to wait, in seconds. Returns whether all threads have ended in it; the others run until they
        are finished or the process ends. May be called again.
        """
        self._end.detach()  # otherwise the interpreter would wait for a thread that never ends
        self._shared.close(cancel=cancel)
        return self._shared.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Promise(Protocol):
    """An object that gets the result or the error of a task, such as a ``Future``."""

    def set_running_or_notify_cancel(self) -> bool: ...
    def set_result(self, result: Any) -> None: ...
    def set_exception(self, exception: BaseException) -> None: ...
    def cancel(self) -> bool: ...


_Task = tuple[Promise, Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class _Shared:
    """The state that a pool shares with its threads. They must not refer to the pool itself, which
    would then never be garbage collected."""

    def __init__(self, max_threads: int, name: str) -> None:
        self.max_threads, self.name = max_threads, name
        self.closed = False
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Set the state of a new pool, without threads or tasks. Also for a forked child."""
        self.lock = threading.Lock()
        self.tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.unfinished = 0

    def put(self, tasks: list[_Task]) -> None:
        with self.lock:
            if self.closed:
                raise RuntimeError("this pool is closed")
            self.unfinished += len(tasks)
            for task in tasks:
                self.tasks.put(task)
            while len(self.threads) < min(self.max_threads, self.unfinished):
                self._start_thread()

    def _start_thread(self) -> None:
        name = f"{self.name}-{len(self.threads) + 1}"
        thread = threading.Thread(target=_serve, args=(self,), name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def finished(self) -> None:
        with self.lock:
            self.unfinished -= 1

    def close(self, *, cancel: bool) -> None:
        with self.lock:
            first, self.closed = not self.closed, True
        if cancel:
            with contextlib.suppress(Empty):
                while True:
                    if task := self.tasks.get_nowait():
                        task[0].cancel()
                        task[0].set_running_or_notify_cancel()
                        self.finished()
        if first or cancel:
            for _ in self.threads:
                self.tasks.put(None)

    def join(self, timeout: float | None) -> bool:
        """Wait for all threads but the current one. Return whether they have ended."""
        until = None if timeout is None else time.monotonic() + timeout
        others = [thread for thread in self.threads if thread is not threading.current_thread()]
        for thread in others:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in others)

    def end(self) -> None:
        self.close(cancel=False)
        self.join(None)


def _serve(shared: _Shared) -> None:
    """Do tasks until there are no more: the main function of a thread."""
    try:
        while (task := _next(shared.tasks)) is not None:
            do(*task)
            shared.finished()
            del task  # an idle thread must not keep it alive
    finally:
        close_all()


def _next(tasks: SimpleQueue[_Task | None]) -> _Task | None:
    """Wait for the next task; None at the end. Meanwhile close connections that are due."""
    try:
        return tasks.get_nowait()
    except Empty:
        pass
    while True:
        close_idle(0)
        with contextlib.suppress(Empty):
            return tasks.get(timeout=until_next_close())


def do(
    promise: Promise, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Call ``work`` as a unit of work, and give its promise the result or the error.

    If the work forks, its child ends with the work.
    """
    if not promise.set_running_or_notify_cancel():
        return
    process = os.getpid()
    try:
        with fresh_connections:
            result = work(*args, **kwargs)
    except BaseException as error:  # also SystemExit: the caller gets it from the future
        forked_child.end_if_forked(process, error)
        promise.set_exception(error)
        del promise  # breaks a cycle: the error's traceback refers to it, and it to the error
    else:
        forked_child.end_if_forked(process, None)
        promise.set_result(result)


_all: weakref.WeakSet[_Shared] = weakref.WeakSet()


def _reset_in_child() -> None:
    """A forked child has no threads of its parent, and must not do its parent's tasks."""
    for shared in list(_all):
        shared.reset()


os.register_at_fork(after_in_child=_reset_in_child)
