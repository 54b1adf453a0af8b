"""How a log record is written: as a plain line, for the journal, or as JSON.

A project that configures its own ``LOGGING`` can use ``ForJournal`` and ``AsJSON`` like any other
formatter: ``"formatters": {"journal": {"()": "daemonkit.formats.ForJournal"}}``. It must also set
``"disable_existing_loggers": False``. Otherwise importing the class disables the logger
``daemonkit``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any

FORMATS = ("auto", "plain", "journal", "json")
"""The values of ``--log-format``. ``auto`` means ``journal`` if stderr is connected to systemd's
journal, and ``plain`` otherwise."""

FACTS = ("daemon", "job", "tick", "seconds", "outcome")
"""Attributes that a record may have: the daemon that wrote it, and the job that it is about (after
a forced end: all jobs that were running). The record of a finished tick also has its number, its
seconds, and its outcome, "succeeded" or "failed"."""


def plain() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")


class ForJournal(logging.Formatter):
    """Writes the level as ``<N>`` before each line, as in sd-daemon(3). The journal adds the time.

    Each line of a traceback has the level of its record. Empty lines are left out.
    """

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_priority(record.levelno)}>"
        lines = [line for line in super().format(record).splitlines() if line.strip()]
        return "\n".join(mark + line for line in lines or [""])


class AsJSON(logging.Formatter):
    """Writes one object a line: ``time``, ``level``, ``message``, ``traceback`` and the ``FACTS``.

    Missing values are null.
    """

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
    """Return the formatter for this stream. Raises ``ValueError`` for a name not in ``FORMATS``."""
    if name not in FORMATS:
        raise ValueError(f"there is no log format {name!r}: it is one of {', '.join(FORMATS)}")
    if name == "auto":
        name = "journal" if leads_to_journal(stream) else "plain"
    return {"plain": plain, "journal": ForJournal, "json": AsJSON}[name]()


def leads_to_journal(stream: IO[str]) -> bool:
    """Return whether the stream is connected to systemd's journal.

    $JOURNAL_STREAM names the journal's socket, see systemd.exec(5). The variable alone is not
    enough: a process whose output goes elsewhere inherits it, too.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it has no descriptor, or is closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _priority(level: int) -> int:
    """Return syslog's number for a level."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7
