"""Opens standard streams that are closed when a process starts."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Open /dev/null as standard input, output and error where they are closed.

    Otherwise a socket or a pipe could get the descriptor of a standard stream, and C code or a
    child would write to it. ``sys.stdout`` and ``sys.stderr`` would be None.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest one that is free
            os.set_inheritable(descriptor, True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
