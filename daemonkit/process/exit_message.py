"""The sentence with which a process ends after an error, in the format of its log."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

from django.core.management.base import CommandError, SystemCheckError

from daemonkit.formats import FORMATS, formatter_for


@contextlib.contextmanager
def ends_in_a_sentence(
    stderr: IO[str] | Any, log_format: str | None, *, daemon: str = "", traceback: bool = False
) -> Iterator[None]:
    """End the process for a ``CommandError``, by its exit code and "CommandError: ..." on stderr.

    Django's commands do the same, but in the journal the sentence has the level of an error, and
    as JSON it is an object like any other of the log. ``traceback`` lets the error through.
    """
    try:
        yield
    except CommandError as error:
        if traceback:
            raise
        formatter = formatter_for(log_format or "auto", stderr, plain=logging.Formatter)
        stderr.write(f"{formatter.format(_record(error, daemon))}\n")
        sys.exit(error.returncode)


def format_in(words: Sequence[str]) -> str | None:
    """The log format among words of a command line that are not parsed yet, or do not parse."""
    said = None
    for word, after in zip(words, [*words[1:], ""], strict=False):
        option, _, value = word.partition("=")
        if option == "--log-format":
            said = value or after
    return said if said in FORMATS else None


def _record(error: CommandError, daemon: str) -> logging.LogRecord:
    kind = type(error).__name__
    text = str(error) if isinstance(error, SystemCheckError) else f"{kind}: {error}"
    record = logging.LogRecord("daemonkit", logging.ERROR, __file__, 0, text, None, None)
    record.__dict__["daemon"] = daemon or None
    return record
