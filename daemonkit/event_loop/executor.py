"""An executor that runs the sync work of coroutines on the thread that waits for them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class ServingExecutor(Executor):
    """Runs submitted work on one thread, while that thread calls ``serve_until()``.

    ``thread`` is the thread's ``threading.get_ident()``. ``notify`` is called if work is submitted
    while the thread is not serving, since it may be waiting for something else. Work that is
    submitted after ``close()`` goes to the ``successor``.
    """

    def __init__(
        self,
        thread: int,
        notify: Callable[[], None] = lambda: None,
        successor: ServingExecutor | None = None,
    ) -> None:
        self.thread, self._notify, self._successor = thread, notify, successor
        self._items: SimpleQueue[_Item | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = self._is_serving = False

    def submit(
        self,
        work: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Queue ``work`` for the thread. Call it from any other thread.

        Raises ``RuntimeError`` on the thread itself, which would wait for itself, and when the
        executor is closed and has no successor.
        """
        item = _Item(work, args, kwargs)
        self._put(item)
        return item.future

    def _put(self, item: _Item) -> None:
        if threading.get_ident() == self.thread:
            raise RuntimeError(
                "a coroutine on another event loop of this thread cannot have it do sync work: "
                "use async_to_sync() instead of asyncio.run()"
            )
        with self._lock:
            is_taken = not self._is_closed
            if is_taken:
                self._items.put(item)
        if is_taken:
            if not self._is_serving:
                self._notify()
        elif self._successor is not None:
            self._successor._put(item)
        else:
            raise RuntimeError("the daemon has ended: no thread does its sync work any more")

    # On the thread itself

    @property
    def has_work(self) -> bool:
        return not self._items.empty()

    def serve_until(self, is_over: Callable[[], bool], seconds: float = math.inf) -> bool:
        """Run submitted work until ``is_over()``. Call ``wake()`` when that has become true.

        Returns False if ``seconds`` have passed before.
        """
        outer, self._is_serving = self._is_serving, True
        try:
            return self._serve_until(is_over, time.monotonic() + seconds)
        finally:
            self._is_serving = outer
            if not outer and self.has_work:
                self._notify()

    def _serve_until(self, is_over: Callable[[], bool], until: float) -> bool:
        while not is_over():
            left = until - time.monotonic()
            try:
                item = self._items.get(timeout=None if left == math.inf else max(0.0, left))
            except Empty:
                return is_over()
            if item is not None:
                item.run()
            del item  # an idle thread must not keep it alive
        return True

    def serve_what_waits(self) -> None:
        """Run the work that has been submitted until now."""
        for _ in range(self._items.qsize()):
            if (item := self._items.get()) is not None:
                item.run()

    def wake(self) -> None:
        """Make ``serve_until()`` call ``is_over()`` again. Any thread may call this."""
        self._items.put(None)

    def close(self) -> None:
        """Stop serving. Pending work goes to the successor, or is cancelled."""
        with self._lock:
            self._is_closed = True
        while self.has_work:
            if (item := self._items.get()) is None:
                continue
            if self._successor is not None:
                self._successor._items.put(item)
                self._successor._notify()
            else:
                item.future.cancel()


class _Item:
    """One piece of work."""

    def __init__(
        self, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.future: Future[Any] = Future()
        self._work, self._args, self._kwargs = work, args, kwargs

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._work(*self._args, **self._kwargs)
        except BaseException as error:
            self.future.set_exception(error)
            del self  # breaks a cycle: the error's traceback refers to it, and it to the error
        else:
            self.future.set_result(result)
