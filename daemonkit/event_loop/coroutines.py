"""Awaits the coroutines of a life, on an event loop that is created when it is first needed."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from daemonkit.event_loop.loop import EventLoop, Host


class Watched(Protocol):
    """Where the watcher finds the event loop."""

    event_loop: EventLoop | None


class Coroutines:
    """The async code of one life."""

    def __init__(self, life: Host, watched: Watched) -> None:
        self._life = weakref.ref(life)  # or only the garbage collector would free a life
        self._watched = watched
        self._making = threading.Lock()

    @property
    def event_loop(self) -> EventLoop:
        """The event loop, created when it is first used."""
        from daemonkit.event_loop.loop import EventLoop  # not for a daemon without async code

        with self._making:
            if self._watched.event_loop is None:
                life = self._life()
                assert life is not None
                self._watched.event_loop = EventLoop(life)
            return self._watched.event_loop

    def awaited(self, result: Any) -> Any:
        """The result of a method of the daemon, awaited if it is a coroutine. Meanwhile this thread
        does the sync work that the coroutine hands over."""
        if not hasattr(type(result), "__await__"):
            return result
        try:
            return self.event_loop.run(result)
        finally:
            life = self._life()
            if life is None or life.home is None:  # a bare iterate()
                self.close()

    def refuse_in_a_coroutine(self, what: str, instead: str) -> None:
        """Raise ``RuntimeError`` if a coroutine calls what would block its event loop."""
        if self._watched.event_loop is not None:
            self._watched.event_loop.refuse(what, instead)

    def serve_tasks(self) -> None:
        """Do the sync work of tasks that continue between ticks."""
        if self._watched.event_loop is not None:
            self._watched.event_loop.serve_tasks()

    def close(self) -> None:
        """End all tasks, and the loop."""
        try:
            if self._watched.event_loop is not None:
                self._watched.event_loop.close()
        finally:
            self._watched.event_loop = None
