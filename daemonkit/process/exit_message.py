"""The message that a process writes when it ends after an error, in the format of its log."""

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
    """On a ``CommandError``, write "CommandError: ..." to stderr and exit with its code.

    Django's commands do the same. Here the message also has the level of an error in the journal,
    and is an object like other log records in JSON. With ``traceback`` the error is raised.
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
    """The value of ``--log-format`` in a command line that is not parsed yet, or cannot be."""
    value = None
    for word, after in zip(words, [*words[1:], ""], strict=False):
        option, _, joined = word.partition("=")
        if option == "--log-format":
            value = joined or after
    return value if value in FORMATS else None


def _record(error: CommandError, daemon: str) -> logging.LogRecord:
    kind = type(error).__name__
    text = str(error) if isinstance(error, SystemCheckError) else f"{kind}: {error}"
    record = logging.LogRecord("daemonkit", logging.ERROR, __file__, 0, text, None, None)
    record.__dict__["daemon"] = daemon or None
    return record
