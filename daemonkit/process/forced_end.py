"""The end of a process by force: its children first, then itself."""

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
"""Seconds between SIGTERM and SIGKILL for what a process has started that is forced to end."""

ASIDE_TIME = 0.5
"""Seconds to wait for what is done in a thread of its own."""


class ForcedEnd:
    """What is done with the children of this process, and with the process itself. What it needs is
    loaded only then: most processes end well."""

    def __init__(self) -> None:
        self._children: Children | None = None

    def what_stands(self) -> str:
        """What keeps the process from ending, in words."""
        from daemonkit.process.ending import what_stands

        return what_stands()

    def terminate_children(self) -> None:
        from daemonkit.process.children import Children

        self._children = Children(os.getpid())
        self._children.terminate()

    def end_children(self) -> None:
        """Kill the children that SIGTERM does not end."""
        if self._children is None:  # the tick was faster than the watcher
            self.terminate_children()
        assert self._children is not None
        self._children.end(CHILDREN_TIME)

    def leave(self) -> NoReturn:
        if self._children is not None:
            self._children.kill()
        aside(flush)
        os._exit(Exit.FORCED)


def aside(work: Callable[..., None], *arguments: object) -> None:
    """Do it in a thread of its own and wait a moment for it.

    It may log, and the thread that we watch may hang with the log's lock in its hands.
    """
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    with contextlib.suppress(RuntimeError):  # the interpreter is ending, and starts no thread
        thread.start()
        thread.join(ASIDE_TIME)


def flush() -> None:
    """Write out what is buffered, before an end without the interpreter's own."""
    for handler in logging.root.handlers:
        with contextlib.suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, or closed
            stream.flush()
