"""The pipe that wakes a watcher, and the bytes in it that tell which signals have arrived."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator

from daemonkit.process.stopping import close_pipe, pipe, replace_pipe

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_FROM_PYTHON = 0x80
"""The bit that is set in a byte written by a Python-level handler."""


class SignalPipe:
    """Signal handlers write to it, at the C level and in Python; so does ``wake()``."""

    def __init__(self) -> None:
        self._arrivals = Arrivals()
        self.reader, self.writer = pipe()

    def notify(self, signum: int) -> None:
        """Called by the Python-level handler of a signal. The C-level one writes ``signum``."""
        with contextlib.suppress(OSError):  # full: the watcher is awake; or closed, in a child
            os.write(self.writer, bytes([signum | _FROM_PYTHON]))

    def wake(self) -> None:
        """Wake the watcher, without a signal."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self.writer, b"\0")

    def arrived(self) -> list[signal.Signals]:
        """Read the signals that have arrived. Call it when the pipe is readable."""
        return list(self._arrivals.of(os.read(self.reader, 4096)))

    def replace(self) -> None:
        """In a forked child: replace the pipe that it shares with its parent."""
        replace_pipe(self.reader, self.writer)

    def close(self) -> None:
        close_pipe(self.reader, self.writer)


class Arrivals:
    """Turns bytes into signals. The C-level handler of a signal writes a byte, the Python-level one
    another later; only that arrives while other code has replaced the wake-up descriptor."""

    def __init__(self) -> None:
        self._awaited: Counter[int] = Counter()

    def of(self, written: bytes) -> Iterator[signal.Signals]:
        for byte in written:
            signum = byte & ~_FROM_PYTHON
            if signum not in STOP_SIGNALS:
                continue
            if byte == signum:
                self._awaited[signum] += 1
                yield signal.Signals(signum)
            elif not self._awaited.pop(signum, 0):
                yield signal.Signals(signum)
