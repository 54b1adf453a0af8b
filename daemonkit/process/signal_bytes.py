"""The bytes by which a watcher hears of signals."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_TOLD_BY_PYTHON = 0x80
"""Set in the byte of a signal that its Python-level handler has written, and not C."""


def byte_of_handler(signum: int) -> bytes:
    """What the Python-level handler of a signal writes. C writes the number of the signal."""
    return bytes([signum | _TOLD_BY_PYTHON])


class Arrivals:
    """The signals behind the bytes. Each writes one from C and, when Python gets to it, one from
    its handler; but only the second if the wake-up descriptor is somebody else's."""

    def __init__(self) -> None:
        self._untold: Counter[int] = Counter()

    def of(self, written: bytes) -> Iterator[signal.Signals]:
        for byte in written:
            signum = byte & ~_TOLD_BY_PYTHON
            if signum not in STOP_SIGNALS:
                continue
            if byte == signum:
                self._untold[signum] += 1
                yield signal.Signals(signum)
            elif not self._untold.pop(signum, 0):
                yield signal.Signals(signum)
