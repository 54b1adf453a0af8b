"""Call a function at the end of a thread."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable


class AtThreadEnd:
    """Calls a function when the thread that made this object ends.

    Keep it only in thread-local storage, which a thread clears at its end. A forked child also
    clears the storage of its parent's other threads. The function is not called then, nor while the
    interpreter shuts down.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._here = (os.getpid(), threading.get_ident())

    def __del__(self) -> None:
        if not sys.is_finalizing() and self._here == (os.getpid(), threading.get_ident()):
            self._call()
