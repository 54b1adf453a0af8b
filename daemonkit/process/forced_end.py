"""Ending a process by force: first its children, then itself."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from daemonkit.exits import Exit

if TYPE_CHECKING:
    from daemonkit.process.children import Children

CHILDREN_TIME = 1.0
"""Seconds between SIGTERM and SIGKILL for the children of a process that is forced to end."""

IN_THREAD_TIME = 0.5
"""Seconds to wait for work that ``in_thread()`` runs."""


class ForcedEnd:
    """Ends this process and its children. It imports what it needs only when it is used, because
    most processes are never forced to end."""

    def __init__(self) -> None:
        self._children: Children | None = None

    def blockers(self) -> str:
        """A text that says what keeps the process from ending."""
        from daemonkit.process.ending import blockers

        return blockers()

    def terminate_children(self) -> None:
        from daemonkit.process.children import Children

        self._children = Children(os.getpid())
        self._children.terminate()

    def end_children(self) -> None:
        """Wait for the children to end after SIGTERM, then kill the rest."""
        if self._children is None:  # the tick was faster than the watcher
            self.terminate_children()
        assert self._children is not None
        self._children.end(CHILDREN_TIME)

    def leave(self) -> NoReturn:
        if self._children is not None:
            self._children.kill()
        in_thread(flush)
        os._exit(Exit.FORCED)


def in_thread(work: Callable[..., None], *arguments: object) -> None:
    """Run ``work`` in a thread of its own, and wait ``IN_THREAD_TIME`` for it at most.

    The work may log, and a thread that hangs may hold the lock of a log handler.
    """
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    with contextlib.suppress(RuntimeError):  # no thread can start while the interpreter shuts down
        thread.start()
        thread.join(IN_THREAD_TIME)


def flush() -> None:
    """Flush log handlers and streams, before ``os._exit()`` or ``os.execve()``."""
    for handler in logging.root.handlers:
        with contextlib.suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, or closed
            stream.flush()
