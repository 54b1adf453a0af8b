"""How often systemd has started a daemon, so that a restart loop is visible."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

HOUR = 3600.0


def starts_within_the_hour(name: str) -> int:
    """Return how often this daemon was started within the last hour, including this start.

    0 if that is unknown: outside of systemd, or without a StateDirectory. A reload does not count
    as a start: the unit's $INVOCATION_ID stays the same.
    """
    folder = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    invocation = os.environ.get("INVOCATION_ID", "")
    if not folder or not invocation:
        return 0
    file, now = Path(folder) / f"{name.replace('/', '_')}.starts.json", time.time()
    starts = {each: at for each, at in _read(file).items() if 0 <= now - at < HOUR}
    if invocation not in starts:
        starts[invocation] = now
        _write(file, starts)
    return len(starts)


def starts_text(name: str) -> str:
    """Return the number of starts in words; "" for the first start, and if it is unknown."""
    starts = starts_within_the_hour(name)
    return f"started {starts} times within the hour" if starts > 1 else ""


def _read(file: Path) -> dict[str, float]:
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        found = json.loads(file.read_text())
        return {str(invocation): float(at) for invocation, at in found.items()}
    return {}


def _write(file: Path, starts: dict[str, float]) -> None:
    with contextlib.suppress(OSError):
        new = file.with_suffix(".new")
        new.write_text(json.dumps(starts))
        new.replace(file)
