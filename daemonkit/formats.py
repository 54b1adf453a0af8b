"""How a log record is written: as a plain line, for the journal, or as JSON.

For a project that configures its own ``LOGGING``, ``ForJournal`` and ``AsJSON`` are formatters like
any other: ``"formatters": {"journal": {"()": "daemonkit.formats.ForJournal"}}``. With
``"disable_existing_loggers": False``, or naming the class silences the logger of its package.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any

FORMATS = ("auto", "plain", "journal", "json")
"""What ``--log-format`` takes. ``auto`` is ``journal`` where stderr leads to systemd's journal, and
``plain`` elsewhere."""

FACTS = ("daemon", "job", "tick", "seconds", "outcome")
"""Attributes that a record may have besides its text: the daemon that wrote it, and the job that it
is about (after a forced end: all jobs that were running). The record of a tick that has ended also
has its number, its seconds, and whether it "succeeded" or "failed"."""


def plain() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")


class ForJournal(logging.Formatter):
    """``<N>`` before each line, as sd-daemon(3) has it, and no time: the journal knows that.

    Each line of a traceback has the level of its record, and there are no empty ones.
    """

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_priority(record.levelno)}>"
        lines = [line for line in super().format(record).splitlines() if line.strip()]
        return "\n".join(mark + line for line in lines or [""])


class AsJSON(logging.Formatter):
    """One object a line: ``time``, ``level``, ``message``, ``traceback`` and the ``FACTS``; null
    for what there is not."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **{name: getattr(record, name, None) for name in FACTS},
            "message": record.getMessage(),
            "traceback": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps(facts, ensure_ascii=False, default=str)


def formatter_for(
    name: str, stream: IO[str], plain: Callable[[], logging.Formatter] = plain
) -> logging.Formatter:
    """The formatter that a word of ``FORMATS`` means for this stream; ``ValueError`` if none."""
    if name not in FORMATS:
        raise ValueError(f"there is no log format {name!r}: it is one of {', '.join(FORMATS)}")
    if name == "auto":
        name = "journal" if leads_to_journal(stream) else "plain"
    return {"plain": plain, "journal": ForJournal, "json": AsJSON}[name]()


def leads_to_journal(stream: IO[str]) -> bool:
    """Whether systemd connected the stream to its journal, by $JOURNAL_STREAM: systemd.exec(5).

    The variable alone does not say so: it is inherited by those whose output goes elsewhere.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no descriptor behind it, or closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _priority(level: int) -> int:
    """The level in syslog's numbers."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7
