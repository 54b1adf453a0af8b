"""Durations as text: "30s", "1h30m", "500ms"."""

from __future__ import annotations

import math
import re

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+|\d+(?:\.\d+)?"


def parse_duration(text: str | float) -> float:
    """Seconds of "30", "30s", "5m", "1h30m" or "500ms". Raises ``ValueError`` for anything else."""
    if type(text) in (int, float) and 0 <= float(text) < math.inf:
        return float(text)
    if not re.fullmatch(_DURATION, str(text).strip()):
        raise ValueError(f"a duration such as 30s, 5m, 1h30m or 500ms, not {str(text)!r}")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", str(text))
    return float(sum(float(number) * _UNITS[unit or "s"] for number, unit in parts))


def duration_text(seconds: float) -> str:
    """The shortest text that ``parse_duration`` reads back: 5400 is "1h30m", 0.5 is "500ms"."""
    if round(seconds, 3) < 1:
        return f"{seconds * 1000:.3g}ms"
    whole, fraction = divmod(round(seconds, 3), 1)
    minutes, second = divmod(int(whole), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    parts = [f"{days}d" * bool(days), f"{hour}h" * bool(hour), f"{minute}m" * bool(minute)]
    if second or fraction:
        parts.append(f"{second + fraction:g}s")
    return "".join(parts)
