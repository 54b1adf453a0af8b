"""The futures of a ``Pool``: an error that nobody asks for is logged, and fails its tick."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from daemonkit.process.stopping import Tick, current_tick

Result = TypeVar("Result")

logger = logging.getLogger("daemonkit")

_ENDS_PROCESS = (SystemExit, KeyboardInterrupt, GeneratorExit)


class PoolFuture(Future[Result]):
    """A future that knows whether its outcome was asked for: by ``result()``, ``exception()`` or
    a callback."""

    _is_asked = False

    def result(self, timeout: float | None = None) -> Result:
        self._is_asked = True
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._is_asked = True
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[Result]], object]) -> None:
        self._is_asked = True
        super().add_done_callback(fn)

    def unasked_error(self) -> BaseException | None:
        """The error of a finished task that nobody has asked for; it counts as asked from now."""
        if self._is_asked or self.cancelled() or not self.done():
            return None
        self._is_asked = True
        error = super().exception()
        if error is not None:
            logger.error("the work of a Pool failed: %s: %s", type(error).__name__, error,
                         exc_info=error)  # fmt: skip
        return error

    def __del__(self) -> None:
        self.unasked_error()


class Awaited:
    """The futures that one tick has submitted. The tick waits for them at its end."""

    def __init__(self, tick: Tick) -> None:
        self._threads: list[int] = []
        tick.helpers = self._threads
        self._futures: dict[PoolFuture[Any], None] = {}

    @classmethod
    def of_this_tick(cls) -> Awaited | None:
        """Those of the tick that this thread or coroutine works for; None outside of a tick."""
        tick = current_tick.get()
        if tick is None or tick.running.get(tick.thread) is not tick:
            return None
        with _making:
            if tick.awaited is None:
                tick.awaited = cls(tick)
                tick.at_end = (*tick.at_end, tick.awaited.finish)
            found: Awaited = tick.awaited
            return found

    def add(self, future: PoolFuture[Any]) -> None:
        self._futures[future] = None

    def helping(self, work: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Do a task on a thread of the pool. The cut of an overdue tick cuts that thread, too."""
        thread = threading.get_ident()
        self._threads.append(thread)
        try:
            return work(*args, **kwargs)
        finally:
            self._threads.remove(thread)

    def forget(self, future: Future[Any]) -> None:
        """Forget a task that has succeeded: a tick may submit a million."""
        if not future.cancelled() and Future.exception(future) is None:
            self._futures.pop(future, None)  # type: ignore[call-overload]

    def finish(self, error: BaseException | None) -> BaseException | None:
        """Wait for all tasks. Returns the tick's error: its own, or else the first one that nobody
        has asked for."""
        while self._futures:
            futures = list(self._futures)
            wait(futures)
            for future in futures:
                self._futures.pop(future, None)
                unasked = future.unasked_error()
                if isinstance(unasked, _ENDS_PROCESS):
                    raise unasked
                error = error or unasked
        return error


_making = threading.Lock()
