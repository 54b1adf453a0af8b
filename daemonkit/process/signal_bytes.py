"""The bytes that tell a watcher which signals have arrived."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_FROM_PYTHON = 0x80
"""The bit that is set in a byte written by a Python-level handler."""


def byte_of_handler(signum: int) -> bytes:
    """The byte that the Python-level handler writes. The C-level handler writes ``signum``."""
    return bytes([signum | _FROM_PYTHON])


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
