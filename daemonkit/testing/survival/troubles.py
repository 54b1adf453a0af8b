"""The common troubles of a daemon, and the report of those that it did not survive."""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import NamedTuple


class Trouble(enum.Enum):
    """What ``assert_survives()`` does to a daemon."""

    NONE = "no trouble at all"
    IDLE_LOSS = "sessions lost while it waits"
    QUERY_LOSS = "a session lost in a query"
    COMMIT_LOSS = "a session lost in COMMIT"
    OUTAGE_AT_START = "a database that is away at start"
    OUTAGE_LATER = "a database that goes away"
    SIGTERM = "SIGTERM in a tick"
    SECOND_LIFE = "opened a second time"
    TWO_COPIES = "two copies at the same time"


class Fault(NamedTuple):
    """A trouble that a daemon did not survive, and what went wrong."""

    trouble: Trouble
    what: str


def report(name: str, vendor: str, faults: list[Fault], leave_out: Collection[Trouble]) -> str:
    """A text that lists all troubles, and below each its faults. What was not tried has a dash."""
    lines = [f"{name} does not survive on {vendor}:"]
    fails_anyway = any(fault.trouble is Trouble.NONE for fault in faults)
    for trouble in Trouble:
        found = list(dict.fromkeys(fault.what for fault in faults if fault.trouble is trouble))
        mark = "FAULT" if found else "  -  " if fails_anyway or trouble in leave_out else "  ok "
        lines += [f"  {mark}  {trouble.value}", *(f"           {what}" for what in found)]
    if fails_anyway:
        lines.append("what fails without any trouble was tried no further")
    return "\n".join(lines)
