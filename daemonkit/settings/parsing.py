"""Parses values from a command line or a class. For a bad value it raises ``CommandError`` (exit
code 2) with one sentence that names the flag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError

from daemonkit.clock import NEVER, Clock
from daemonkit.exits import Exit
from daemonkit.schedules.base import Schedule
from daemonkit.schedules.durations import parse_duration


def seconds(name: str, value: Any) -> float:
    time = seconds_or_none(name, value)
    if time is None:
        raise usage(f"{_flag(name)} needs a time; it cannot be none")
    return time


def seconds_or_none(name: str, value: Any) -> float | None:
    if value is None or value == "none":
        return None
    try:
        time = parse_duration(value)
    except ValueError as error:
        raise usage(f"{_flag(name)} takes {error}") from None
    if time <= 0:
        raise usage(f"{_flag(name)} must be above zero, not {value}")
    return time


def count(name: str, value: Any) -> int | None:
    if value is None or value == "none":
        return None
    if not str(value).isascii() or not str(value).isdigit() or int(value) < 1:
        raise usage(f"{_flag(name)} takes a whole number above zero, not {value!r}")
    return int(value)


def at_least_one(name: str, value: Any) -> int:
    number = count(name, value)
    if number is None:
        raise usage(f"{_flag(name)} needs a number; it cannot be none")
    return number


def size(name: str, value: Any) -> int | None:
    if value is None or value == "none":
        return None
    from daemonkit.settings.sizes import size_of  # not for a loop without max_memory

    try:
        return size_of(_flag(name), value)
    except ValueError as error:
        raise usage(str(error)) from None


def _flag(name: str) -> str:
    flag = f"--{name.replace('_', '-')}"
    return {"every": flag, "expect_success_within": name}.get(name, f"{name} ({flag})")


def usage(sentence: str) -> CommandError:
    return CommandError(sentence, returncode=Exit.USAGE)


def that_fires(name: str, schedule: Schedule, options: Mapping[str, Any]) -> Schedule:
    now = (options.get("clock") or Clock()).moment()
    if schedule.due(None, now, now) == NEVER:
        raise usage(f"{name}: the trigger {schedule} never fires: it has no time to come")
    return schedule
