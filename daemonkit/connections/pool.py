"""The one thread pool: its jobs are units of work, and its threads close what they opened."""

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

from daemonkit.connections.holding import close_all, close_idle, until_next_close
from daemonkit.connections.units import fresh_connections
from daemonkit.process import forked_child

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Pool:
    """A thread pool for work with Django's ORM.

    Everything that is submitted is a unit of work: it starts and ends with healthy connections, as
    under ``fresh_connections``. A thread that waits closes the connections whose ``CONN_MAX_AGE``
    has passed, and one that ends closes all of its own. Threads are started when they are needed,
    ``threads`` at the most. In a forked child the pool is empty, and starts threads of its own.

    ``close()`` it, or use it in a ``with`` block. One that is forgotten is closed when it is
    collected, or when the interpreter ends. Raises ``ValueError`` for fewer threads than one.
    """

    def __init__(self, threads: int = 10, *, name: str = "pool") -> None:
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"Pool() needs a whole number of threads above zero, not {threads!r}")
        self._shared = _Shared(threads, name)
        self._end = weakref.finalize(self, self._shared.end)

    def submit(
        self,
        work: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Have a thread do the work as a unit of work of its own.

        The future has its result, or what it raised (``SystemExit`` included), when the unit of
        work has ended: what is called when it is done runs outside of it. Raises ``RuntimeError``
        if the pool is closed.
        """
        future: Future[Result] = Future()
        in_context = contextvars.copy_context().run  # so that a tick's beat() is known as its own
        self._shared.put([(future, in_context, (work, *args), kwargs)])
        return future

    def fulfil(self, promises: Iterable[tuple[Promise, Callable[..., Any]]]) -> None:
        """As ``submit``, but for many at once, and with promises that are there already: they are
        told on the thread that did the work. Raises ``RuntimeError`` if the pool is closed."""
        self._shared.put([(promise, work, (), {}) for promise, work in promises])

    def close(self, *, cancel: bool = False, timeout: float | None = None) -> bool:
        """Take no more work, do what was submitted, and end the threads.

        ``cancel``: what no thread has begun yet is cancelled instead. ``timeout``: seconds to wait;
        whether all threads have ended by then; one that has not is left to the process's end. It
        may be called again.
        """
        self._end.detach()  # or the interpreter's end would wait for a thread that never ends
        self._shared.close(cancel=cancel)
        return self._shared.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Promise(Protocol):
    """Whoever is told what work came to; a ``Future`` is one."""

    def set_running_or_notify_cancel(self) -> bool: ...
    def set_result(self, result: Any) -> None: ...
    def set_exception(self, exception: BaseException) -> None: ...
    def cancel(self) -> bool: ...


_Task = tuple[Promise, Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class _Shared:
    """What a pool's threads hold of it: not the pool itself, or it would never be collected."""

    def __init__(self, most: int, name: str) -> None:
        self.most, self.name = most, name
        self.closed = False
        self.part()
        _all.add(self)

    def part(self) -> None:
        """Begin with no thread and nothing to do; in a forked child, too."""
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
            while len(self.threads) < min(self.most, self.unfinished):
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
        """Wait for the threads; for the one that calls this, nobody waits."""
        until = None if timeout is None else time.monotonic() + timeout
        others = [thread for thread in self.threads if thread is not threading.current_thread()]
        for thread in others:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in others)

    def end(self) -> None:
        self.close(cancel=False)
        self.join(None)


def _serve(shared: _Shared) -> None:
    """A thread's life."""
    try:
        while (task := _next(shared.tasks)) is not None:
            do(*task)
            shared.finished()
            del task  # a thread that waits must keep nothing alive
    finally:
        close_all()


def _next(tasks: SimpleQueue[_Task | None]) -> _Task | None:
    """The next task, None at the end. While there is none, close what is due to be closed."""
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
    """Do work as a unit of work, and tell its promise what it came to.

    If the work forks, its child ends with the work.
    """
    if not promise.set_running_or_notify_cancel():
        return
    process = os.getpid()
    try:
        with fresh_connections:
            result = work(*args, **kwargs)
    except BaseException as error:  # SystemExit, too: whoever waits for it shall see it
        if os.getpid() != process:
            forked_child.end(error)
        promise.set_exception(error)
        del promise  # the traceback of the error would keep it, and it the error
    else:
        if os.getpid() != process:
            forked_child.end(None)
        promise.set_result(result)


_all: weakref.WeakSet[_Shared] = weakref.WeakSet()


def _part_in_child() -> None:
    """A forked child has none of its parent's threads, and what was queued is its parent's."""
    for shared in list(_all):
        shared.part()


os.register_at_fork(after_in_child=_part_in_child)
