"""How much memory this process uses, and sizes such as "300m"."""

from __future__ import annotations

import os
import re

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_SIZE = r"(\d+(?:\.\d+)?)\s*([kmg]?)b?"


def resident() -> int:
    """The resident set size of this process in bytes, including pages shared with its parent.

    This is not the high-water mark of getrusage(2), which never goes down. Raises ``OSError`` where
    there is no /proc."""
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        return int(os.read(descriptor, 200).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(descriptor)


def parse_size(text: str | int) -> int:
    """Bytes of "300m", "1.5g" or 1000. Raises ``ValueError`` for anything else."""
    found = re.fullmatch(_SIZE, str(text).strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"a size such as 300m or 1g, not {str(text)!r}")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def size_text(size: int) -> str:
    """The size as a short text: 314572800 is "300m"."""
    unit = max((unit for unit, bytes_ in _UNITS.items() if size >= bytes_), key=_UNITS.__getitem__)
    return f"{size / _UNITS[unit]:.4g}{unit}"
