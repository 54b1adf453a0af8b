"""The end of a thread. Its connections are of no use to anybody then."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable


class AtThreadEnd:
    """Calls a function when the thread that made this ends.

    Keep it in thread-local storage, and nowhere else: a thread clears its own storage at its end.
    A forked child also clears that of the threads which it does not have. There nothing is called,
    and neither while the interpreter shuts down.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._here = (os.getpid(), threading.get_ident())

    def __del__(self) -> None:
        if not sys.is_finalizing() and self._here == (os.getpid(), threading.get_ident()):
            self._call()
