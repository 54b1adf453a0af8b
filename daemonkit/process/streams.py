"""Standard streams that are closed when a process starts."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Lead standard input, output and error to /dev/null where they are closed.

    Otherwise a socket or a pipe could get the descriptor, and C code or a program would write to
    it; and ``sys.stdout`` and ``sys.stderr`` are None.
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
