"""Decides for a monitor whether daemons work: ``daemons status --check``."""

from __future__ import annotations

from collections.abc import Sequence

from daemonkit.schedules.durations import duration_text
from daemonkit.status.account import State
from daemonkit.status.reading import WORKING, Seen


def complaints(processes: Sequence[Seen], names: Sequence[str] = ()) -> list[str]:
    """A sentence for each daemon that does not work: of these, or of all that have a row."""
    wanted = list(names) or sorted({each.daemon for each in processes})
    found = (_complaint(name, [p for p in processes if p.daemon == name]) for name in wanted)
    return [each for each in found if each]


def _complaint(name: str, processes: Sequence[Seen]) -> str:
    if not processes:
        return f"{name} has no process"
    working = [each for each in processes if each.state in WORKING]
    if not working:
        return "; ".join(_what_is_wrong(each) for each in processes)
    if any(_has_succeeded(each) for each in working):
        return ""
    best = min(working, key=lambda each: _since_success(each))
    last = f": {best.last_error}" if best.last_error else ""
    limit = duration_text(best.expect_success_within or 0.0)
    ago = _ago(_since_success(best))
    if best.success_ago is None:
        return f"{name} has not succeeded since it was started {ago}, though {limit} is the limit" \
               f"{last}"  # fmt: skip
    return f"{name} last succeeded {ago}, though {limit} is the limit{last}"


def _has_succeeded(process: Seen) -> bool:
    limit = process.expect_success_within
    return limit is None or _since_success(process) <= limit


def _since_success(process: Seen) -> float:
    return process.started_ago if process.success_ago is None else process.success_ago


def _what_is_wrong(process: Seen) -> str:
    who = f"{process.name} on {process.place}"
    if process.state == State.SILENT:
        return f"{who} is silent: last seen {_ago(process.seen_ago)}, {process.last_state}"
    word = "has" if process.state == State.ENDED else "is"
    detail = f" ({process.detail})" if process.detail else ""
    return f"{who} {word} {process.state}{detail}"


def _ago(seconds: float) -> str:
    return f"{duration_text(max(0.0, round(seconds, 0 if seconds >= 10 else 1)))} ago"
