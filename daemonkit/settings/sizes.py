"""Parses a limit of memory."""

from __future__ import annotations

from typing import Any

from daemonkit.process.memory import parse_size, resident, size_text


def size_of(flag: str, value: Any) -> int:
    """A number of bytes. Raises ``ValueError``, with a sentence for the user, also if the
    process holds more already."""
    try:
        found = parse_size(value)
        held = resident()
    except ValueError as error:
        raise ValueError(f"{flag} takes {error}") from None
    except OSError:
        raise ValueError(f"{flag} needs Linux's /proc/self/statm") from None
    if found <= 0:
        raise ValueError(f"{flag} must be above zero, not {value}")
    if found <= held:
        raise ValueError(
            f"{flag} of {value} is less than the {size_text(held)} that the process holds "
            f"when it starts: say more, with a unit, such as 300m or 1g"
        )
    return found
